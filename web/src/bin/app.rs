//! The page.

fn main() {
    #[cfg(target_arch = "wasm32")]
    qunlong_web::app::start();
}
