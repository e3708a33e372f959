//! The worker: a node of the cluster.

fn main() {
    #[cfg(target_arch = "wasm32")]
    qunlong_web::driver::start();
}
