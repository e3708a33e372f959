//! The page: one frame around all screens, the keyboard, and the address that holds what is shown.

use std::rc::Rc;

use qunlong_core::NodeId;
use wasm_bindgen::prelude::*;
use web_sys::{HtmlElement, KeyboardEvent};
use yew::prelude::*;

use crate::cluster::{Cluster, Mode, keep, own_host, stored, stored_for_tab, window};
use crate::components::{Help, Navigation, TimeStrip, TopBar};
use crate::i18n::{Language, Texts};
use crate::overlap::Wish;
use crate::pages::{ConsensusPage, JoinPage, KeysPage, MembersPage, NodePage, StagePage, TopologyPage};

/// How often the screens are drawn again, at most.
const REFRESH_MS: i32 = 100;

/// A screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the screen of its name")]
pub enum Page {
    Join,
    Stage,
    Keys,
    Consensus,
    Members,
    Topology,
    Node,
}

/// All screens, in the order of the navigation and of the keys 1 to 7.
pub const PAGES: [Page; 7] =
    [Page::Join, Page::Stage, Page::Keys, Page::Consensus, Page::Members, Page::Topology, Page::Node];

impl Page {
    /// Its name in the address.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Stage => "stage",
            Self::Keys => "keys",
            Self::Consensus => "consensus",
            Self::Members => "members",
            Self::Topology => "topology",
            Self::Node => "node",
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn title(self, texts: &'static Texts) -> &'static str {
        match self {
            Self::Join => texts.join,
            Self::Stage => texts.stage,
            Self::Keys => texts.keys,
            Self::Consensus => texts.consensus,
            Self::Members => texts.members,
            Self::Topology => texts.topology,
            Self::Node => texts.this_node,
        }
    }
}

/// Light, dark, or as the system has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is what it says")]
pub enum Theme {
    System,
    Light,
    Dark,
}

impl Theme {
    /// Its name in the address and in the style sheet.
    #[must_use]
    pub fn tag(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    fn from_tag(tag: &str) -> Self {
        match tag {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::System,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::System => Self::Light,
            Self::Light => Self::Dark,
            Self::Dark => Self::System,
        }
    }
}

/// What is selected on the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// A node.
    Node(NodeId),
    /// The link between two.
    Link(NodeId, NodeId),
}

/// What is shown. All of it but the help sheet is in the address, so that a view can be shared; how fast the picture
/// plays is not, for that belongs to the moment.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The screen.
    pub page: Page,
    /// The language.
    pub language: Language,
    /// The theme.
    pub theme: Theme,
    /// What is selected.
    pub selected: Option<Selected>,
    /// The namespace that was chosen; each screen works on its usual one if it cannot work on this.
    pub namespace: Option<String>,
    /// The key that is open.
    pub key: Option<String>,
    /// How many owners requests wait for.
    pub wish: Wish,
    /// Whether pictures are shown as tables.
    pub table: bool,
    /// What the story is filtered by.
    pub filter: String,
    /// Whether the key sheet is open.
    pub help: bool,
}

impl View {
    /// Reads the address; what it leaves out comes from this device's settings.
    fn from_address() -> Self {
        let hash = window().location().hash().unwrap_or_default();
        let hash = hash.trim_start_matches("#/");
        let (path, query) = hash.split_once('?').unwrap_or((hash, ""));
        let field = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(n, _)| *n == name)
                .map(|(_, value)| js_sys::decode_uri_component(value).map_or_else(|_| value.to_owned(), Into::into))
        };
        let browser = || window().navigator().language().unwrap_or_default();
        let language = field("lang").or_else(|| stored("language")).unwrap_or_else(browser);
        let theme = field("theme").or_else(|| stored("theme")).unwrap_or_default();
        let node = |text: &str| NodeId::parse_hex(text);
        let count = |name: &str| field(name).and_then(|text| text.parse().ok());
        let selected = field("node").as_deref().and_then(node).map(Selected::Node).or_else(|| {
            let link = field("link")?;
            let (a, b) = link.split_once('-')?;
            Some(Selected::Link(node(a)?, node(b)?))
        });
        Self {
            page: PAGES.into_iter().find(|page| page.path() == path).unwrap_or(Page::Stage),
            language: Language::from_tag(&language),
            theme: Theme::from_tag(&theme),
            selected,
            namespace: field("namespace"),
            key: field("key"),
            wish: Wish { read: count("r"), write: count("w") },
            table: field("table").is_some(),
            filter: field("filter").unwrap_or_default(),
            help: false,
        }
    }

    fn address(&self) -> String {
        let encode = |text: &str| String::from(js_sys::encode_uri_component(text));
        let mut query = vec![format!("lang={}", self.language.tag())];
        if self.theme != Theme::System {
            query.push(format!("theme={}", self.theme.tag()));
        }
        match self.selected {
            Some(Selected::Node(id)) => query.push(format!("node={id:x}")),
            Some(Selected::Link(a, b)) => query.push(format!("link={a:x}-{b:x}")),
            None => (),
        }
        if let Some(namespace) = &self.namespace {
            query.push(format!("namespace={}", encode(namespace)));
        }
        if let Some(key) = &self.key {
            query.push(format!("key={}", encode(key)));
        }
        query.extend(self.wish.read.map(|count| format!("r={count}")));
        query.extend(self.wish.write.map(|count| format!("w={count}")));
        if self.table {
            query.push("table=1".to_owned());
        }
        if !self.filter.is_empty() {
            query.push(format!("filter={}", encode(&self.filter)));
        }
        format!("#/{}?{}", self.page.path(), query.join("&"))
    }
}

/// A change of what is shown.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each sets the field of its name, or switches it")]
pub enum Action {
    Page(Page),
    Language,
    Theme,
    Select(Option<Selected>),
    Namespace(Option<String>),
    Key(Option<String>),
    Wish(Wish),
    Table,
    Filter(String),
    Help,
    Address,
}

impl Reducible for View {
    type Action = Action;

    fn reduce(self: Rc<Self>, action: Action) -> Rc<Self> {
        let mut view = (*self).clone();
        match action {
            Action::Page(page) => view.page = page,
            Action::Language => view.language = view.language.other(),
            Action::Theme => view.theme = view.theme.next(),
            Action::Select(selected) => view.selected = selected,
            // The key and the counts were the other one's.
            Action::Namespace(namespace) => {
                (view.namespace, view.key, view.wish) = (namespace, None, Wish::default());
            }
            Action::Key(key) => view.key = key,
            Action::Wish(wish) => view.wish = wish,
            Action::Table => view.table = !view.table,
            Action::Filter(filter) => view.filter = filter,
            Action::Help => view.help = !view.help,
            Action::Address => view = Self { help: view.help, ..Self::from_address() },
        }
        view.into()
    }
}

/// What every screen gets.
#[derive(Clone, Properties, PartialEq)]
#[allow(missing_debug_implementations, reason = "it holds callbacks")]
pub struct Screen {
    /// The cluster.
    pub cluster: Cluster,
    /// Counts redraws: a screen is drawn again when it has changed.
    pub version: u64,
    /// What is shown.
    pub view: View,
    /// To change what is shown.
    pub act: Callback<Action>,
}

impl Screen {
    /// The texts in the chosen language.
    #[must_use]
    pub fn texts(&self) -> &'static Texts {
        self.view.language.texts()
    }
}

/// The page's `main`.
pub fn start() {
    yew::Renderer::<App>::new().render();
}

#[function_component]
fn App() -> Html {
    let view = use_reducer(View::from_address);
    let cluster = use_memo((), |()| {
        Cluster::new(if stored_for_tab("mode").as_deref() == Some("watch") { Mode::Watch } else { Mode::Node })
    });
    let version = use_state(|| 0_u64);
    use_refresh(&cluster, &version);
    use_page_events(&cluster, &view);
    use_keyboard(&cluster, &view);
    use_address(&view);

    let act = {
        let view = view.dispatcher();
        Callback::from(move |action| view.dispatch(action))
    };
    let screen = Screen { cluster: (*cluster).clone(), version: *version, view: (*view).clone(), act };
    let content = match view.page {
        Page::Join => html! { <JoinPage ..screen.clone() /> },
        Page::Stage => html! { <StagePage ..screen.clone() /> },
        Page::Keys => html! { <KeysPage ..screen.clone() /> },
        Page::Consensus => html! { <ConsensusPage ..screen.clone() /> },
        Page::Members => html! { <MembersPage ..screen.clone() /> },
        Page::Topology => html! { <TopologyPage ..screen.clone() /> },
        Page::Node => html! { <NodePage ..screen.clone() /> },
    };
    let first_message = cluster.read().first_message_ms.map(|ms| format!("{ms:.0}"));
    html! {
        <div class="frame">
            <TopBar ..screen.clone() />
            <Navigation ..screen.clone() />
            <main id="main" class={classes!("page", view.page.path())} tabindex="-1" data-first-message={first_message}>
                { content }
            </main>
            <TimeStrip ..screen.clone() />
            if view.help {
                <Help ..screen />
            }
        </div>
    }
}

/// Draws the screens again when something changed, ten times a second at most.
#[hook]
fn use_refresh(cluster: &Rc<Cluster>, version: &UseStateHandle<u64>) {
    let (cluster, setter) = (Rc::clone(cluster), version.setter());
    use_effect_with((), move |()| {
        let mut number = 0;
        let callback = Closure::<dyn FnMut()>::new(move || {
            if cluster.take_changed() {
                number += 1;
                setter.set(number);
            }
        });
        let interval = window()
            .set_interval_with_callback_and_timeout_and_arguments_0(callback.as_ref().unchecked_ref(), REFRESH_MS);
        move || {
            if let Ok(interval) = interval {
                window().clear_interval_with_handle(interval);
            }
            drop(callback);
        }
    });
}

/// The page is hidden, shown, closed, or its address was changed by hand.
#[hook]
fn use_page_events(cluster: &Rc<Cluster>, view: &UseReducerHandle<View>) {
    let (cluster, view) = (Rc::clone(cluster), view.dispatcher());
    use_effect_with((), move |()| {
        let listen = |target: &web_sys::EventTarget, name: &str, callback: Box<dyn FnMut(Event)>| {
            let closure = Closure::wrap(callback);
            let _ = target.add_event_listener_with_callback(name, closure.as_ref().unchecked_ref());
            // The page's own events live as long as the page.
            closure.forget();
        };
        let document = window().document().expect("the page has a document");
        let shown = Rc::clone(&cluster);
        let of = document.clone();
        listen(
            &document,
            "visibilitychange",
            Box::new(move |_| {
                shown.watch(!of.hidden());
                shown.drowsy(of.hidden());
            }),
        );
        let (frozen, resumed) = (Rc::clone(&cluster), Rc::clone(&cluster));
        listen(&document, "freeze", Box::new(move |_| frozen.drowsy(true)));
        let of = document.clone();
        listen(&document, "resume", Box::new(move |_| resumed.drowsy(of.hidden())));
        listen(&window(), "pagehide", Box::new(move |_| cluster.leave()));
        // The browser may bring back a page that had said goodbye: it starts afresh.
        let restored = |event: Event| {
            let persisted = js_sys::Reflect::get(&event, &"persisted".into()).is_ok_and(|value| value.is_truthy());
            if persisted {
                let _ = window().location().reload();
            }
        };
        listen(&window(), "pageshow", Box::new(restored));
        listen(&window(), "hashchange", Box::new(move |_| view.dispatch(Action::Address)));
    });
}

#[hook]
fn use_address(view: &UseReducerHandle<View>) {
    let last = use_mut_ref(|| None::<Page>);
    use_effect_with((**view).clone(), move |view| {
        let address = view.address();
        let before = last.borrow_mut().replace(view.page);
        if let Ok(history) = window().history() {
            // Another screen is a step to go back from; anything else is the same place seen otherwise.
            let is_step = before.is_some_and(|before| before != view.page)
                && window().location().hash().is_ok_and(|hash| !hash.starts_with(&format!("#/{}", view.page.path())));
            let _ = if is_step {
                history.push_state_with_url(&JsValue::NULL, "", Some(&address))
            } else {
                history.replace_state_with_url(&JsValue::NULL, "", Some(&address))
            };
        }
        keep("language", view.language.tag());
        keep("theme", view.theme.tag());
        if let Some(document) = window().document() {
            document.set_title(&format!(
                "{} · {}",
                view.page.title(view.language.texts()),
                view.language.texts().brand
            ));
            if let Some(root) = document.document_element() {
                let _ = root.set_attribute("lang", view.language.tag());
                let _ = root.set_attribute("data-theme", view.theme.tag());
            }
        }
    });
}

/// The keys of the help sheet; never while somebody types.
#[hook]
fn use_keyboard(cluster: &Rc<Cluster>, view: &UseReducerHandle<View>) {
    let (cluster, handle) = (Rc::clone(cluster), view.clone());
    use_effect_with((**view).clone(), move |_| {
        let callback = Closure::<dyn FnMut(KeyboardEvent)>::new(move |event: KeyboardEvent| {
            if is_typing(&event) || event.ctrl_key() || event.meta_key() || event.alt_key() {
                return;
            }
            if press(&event.key(), &cluster, &handle) {
                event.prevent_default();
            }
        });
        let target: web_sys::EventTarget = window().into();
        let _ = target.add_event_listener_with_callback("keydown", callback.as_ref().unchecked_ref());
        move || {
            let _ = target.remove_event_listener_with_callback("keydown", callback.as_ref().unchecked_ref());
            drop(callback);
        }
    });
}

fn is_typing(event: &KeyboardEvent) -> bool {
    let Some(target) = event.target().and_then(|target| target.dyn_into::<HtmlElement>().ok()) else { return false };
    let name = target.tag_name();
    let is_slider = target.get_attribute("type").as_deref() == Some("range");
    let presses = event.key() == " " || event.key() == "Enter";
    (matches!(name.as_str(), "INPUT" | "TEXTAREA" | "SELECT") && !is_slider)
        || (presses && matches!(name.as_str(), "BUTTON" | "A" | "SUMMARY"))
}

/// Does what a key stands for. Whether it stands for anything.
fn press(key: &str, cluster: &Cluster, view: &UseReducerHandle<View>) -> bool {
    match key {
        "1" | "2" | "3" | "4" | "5" | "6" | "7" => {
            let number = usize::from(key.as_bytes()[0] - b'1');
            view.dispatch(Action::Page(PAGES[number]));
        }
        " " => {
            let mut world = cluster.write();
            let paused = world.playback.is_paused();
            world.playback.set_paused(!paused);
        }
        "." => {
            let mut world = cluster.write();
            world.playback.set_paused(true);
            world.playback.step();
        }
        "[" | "]" => {
            let mut world = cluster.write();
            let factor = if key == "[" { 0.5 } else { 2.0 };
            let speed = world.playback.speed() * factor;
            world.playback.set_speed(speed);
        }
        "t" => view.dispatch(Action::Table),
        "l" => view.dispatch(Action::Language),
        "d" => view.dispatch(Action::Theme),
        "?" => view.dispatch(Action::Help),
        "/" | "x" => return focus(if key == "/" { "filter" } else { "kill" }),
        "Escape" => {
            if view.help {
                view.dispatch(Action::Help);
            } else {
                view.dispatch(Action::Select(None));
            }
        }
        _ => return false,
    }
    true
}

/// Moves to an element of the page; killing is confirmed there, never done by a key alone.
pub fn focus(id: &str) -> bool {
    let element = window().document().and_then(|document| document.get_element_by_id(id));
    match element.and_then(|element| element.dyn_into::<HtmlElement>().ok()) {
        Some(element) => element.focus().is_ok(),
        None => false,
    }
}

/// Whether the page was loaded by an address that only this machine knows.
#[must_use]
pub fn is_loopback() -> bool {
    let host = own_host();
    host.starts_with("localhost") || host.starts_with("127.") || host.starts_with("[::1]")
}
