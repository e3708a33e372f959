//! Everything the page says, in Chinese and English. A text that one language lacks does not compile.

use qunlong_core::kv::{Event as KvEvent, OpKind, Phase};
use qunlong_core::lift::{EventKind, Family};
use qunlong_core::member::{Class, Durability, State};
use qunlong_core::membership::Event as MembershipEvent;
use qunlong_core::topology::Event as TopologyEvent;
use qunlong_core::{Event, NodeId, Refusal};

/// A language of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// 中文
    Chinese,
    /// English
    #[default]
    English,
}

impl Language {
    /// Its tag in addresses and in the document.
    #[must_use]
    pub fn tag(self) -> &'static str {
        match self {
            Self::Chinese => "zh",
            Self::English => "en",
        }
    }

    /// The language of a tag, Chinese for all of its variants, else English.
    #[must_use]
    pub fn from_tag(tag: &str) -> Self {
        if tag.to_ascii_lowercase().starts_with("zh") { Self::Chinese } else { Self::English }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Chinese => Self::English,
            Self::English => Self::Chinese,
        }
    }

    /// Its texts.
    #[must_use]
    pub fn texts(self) -> &'static Texts {
        match self {
            Self::Chinese => &CHINESE,
            Self::English => &ENGLISH,
        }
    }
}

macro_rules! texts {
    ($($name:ident: $chinese:literal, $english:literal;)*) => {
        /// The texts that stand alone. Names say where they are used.
        #[derive(Debug)]
        #[allow(missing_docs, reason = "each field is the text it holds")]
        pub struct Texts { $(pub $name: &'static str,)* }

        const CHINESE: Texts = Texts { $($name: $chinese,)* };
        const ENGLISH: Texts = Texts { $($name: $english,)* };
    };
}

texts! {
    brand: "群龙", "Qunlong";
    tagline: "无首而吉：没有领导者的集群", "a cluster without a head: good fortune";
    skip: "跳到内容", "Skip to the content";
    nav_label: "页面", "Screens";
    join: "加入", "Join";
    stage: "舞台", "Stage";
    keys: "键值", "Keys";
    members: "成员", "Members";
    this_node: "本节点", "This node";
    language_switch: "English", "中文";
    theme_dark: "深色", "Dark";
    theme_light: "浅色", "Light";
    theme_system: "跟随系统", "System";
    theme: "主题", "Theme";
    help: "快捷键", "Keyboard";
    close: "关闭", "Close";
    live: "实时", "live";
    paused: "已暂停", "paused";
    pause: "暂停", "Pause";
    play: "继续", "Play";
    step: "单步", "Step";
    catch_up: "追上实时", "Catch up";
    speed: "速度", "Speed";
    events_behind: "个事件待播放", "events behind";
    events_per_second: "每秒事件数（60 秒）", "events per second, last minute";
    pause_is_mine: "暂停的是我的画面，不是集群", "Pausing stops my view, not the cluster";
    no_cluster: "尚未连入集群", "not in a cluster yet";
    epoch: "纪元", "epoch";
    status_starting: "节点正在启动…", "node is starting…";
    status_connecting: "正在连接…", "connecting…";
    status_joined: "已加入", "joined";
    status_watching: "旁观中", "watching";
    status_crashed: "节点已崩溃", "node crashed";
    status_lost: "连接已断", "no connection";

    join_title: "这个标签页就是一个节点", "This tab is a node";
    join_lead: "打开本页的每个浏览器标签都会成为集群的正式成员：它接受请求，把写入交给所有者，并亲自清点选票。", "Every browser tab that opens this page becomes a full member: it takes requests, hands writes to owners and counts the votes itself.";
    join_as: "本标签页成为", "This tab becomes";
    join_name: "节点名", "Name of the node";
    join_rename: "改名并重新加入", "Rename and rejoin";
    join_now: "加入集群", "Join the cluster";
    join_watch: "只旁观", "Watch only";
    join_steps: "进展", "Progress";
    step_key: "生成或找回身份密钥（Ed25519，不可导出）", "Make or find the identity key (Ed25519, not extractable)";
    step_journal: "打开日志文件（OPFS）", "Open the journal (OPFS)";
    step_link: "与服务器互证身份并建立连接", "Prove identities and link with a server";
    step_epoch: "获知集群与纪元", "Learn the cluster and its epoch";
    step_second: "第二个中继（失去一个不影响成员身份）", "A second relay (losing one is no event)";
    join_stored: "本机将保存：一把不可导出的密钥、一份日志。清除网站数据即可删除。", "Stored on this device: a key that no script can read, and a journal. Clearing the site's data removes both.";
    join_stored_nothing: "本机什么也不保存：刷新后是一个新节点。", "Nothing is stored on this device: after a reload this is a new node.";
    insecure_context: "浏览器只在 https 或 localhost 页面提供密钥与存储，此页面两者都不是，因此不能成为节点，只能旁观。", "Browsers offer keys and storage only to pages from https or localhost. This page is neither, so it cannot be a node; it can watch.";
    join_others: "让别人加入", "Let others join";
    join_scan: "用手机扫码，或在同一网络中打开", "Scan with a phone, or open on the same network";
    join_loopback: "此地址只在本机有效：节点监听的是回环地址。", "This address works on this machine only: the node listens on loopback.";
    see_stage: "去看集群", "See the cluster";
    why_not: "为什么没有连上", "Why it is not connected";

    stage_table: "表格", "Table";
    stage_picture: "图形", "Picture";
    open_recording: "打开录像", "Open a recording";
    recording: "录像", "Recording";
    recording_same: "重放得到相同的状态", "replayed to the same state";
    back_to_live: "回到现场", "Back to the live cluster";
    stage_label: "集群的节点、连接与飞行中的消息", "Nodes of the cluster, links and messages in flight";
    stage_empty: "还没有看到任何节点。", "No node in sight yet.";
    stage_legend: "点击图例可隐藏该类消息", "Click to hide a kind of message";
    stage_hint: "选中一个节点或连接，看看能对它做什么。", "Select a node or a link to see what can be done to it.";
    try_it: "试一试：写一个键", "Try it: write a key";
    operations: "法定票数", "Quorums";
    operations_empty: "写一个键，看选票如何凑够法定数。", "Write a key and watch the votes fill the quorum.";
    story: "发生了什么", "What happens";
    story_empty: "还很安静。", "All quiet so far.";
    story_no_match: "没有符合筛选的事件。", "No event matches the filter.";
    filter: "筛选", "Filter";
    read_votes: "读", "read";
    write_votes: "写", "write";
    done: "完成", "done";
    inspector: "详情", "Details";
    kill: "杀死（kill -9）", "Kill (kill -9)";
    kill_sure: "真的杀死吗？会影响所有人", "Really kill it? Everybody will notice";
    restart: "重启", "Restart";
    cut_link: "切断连接", "Cut the link";
    cut_sure: "真的切断吗？会影响所有人", "Really cut it? Everybody will notice";
    heal_link: "恢复连接", "Heal the link";
    link: "连接", "Link";
    link_is_cut: "已切断：双方的包都被丢弃", "cut: packets are dropped both ways";
    link_is_open: "畅通", "open";
    link_needs_server: "两个标签页之间没有直接连接：经服务器中继。", "Two tabs have no link of their own: servers relay.";
    incoming: "飞来", "In flight to";
    outgoing: "飞出", "In flight from";
    not_a_demo_link: "这不是演示集群，不能从页面上切断连接。", "This is not a demonstration: links cannot be cut from the page.";
    not_a_demo: "这不是演示集群，不能从页面上杀节点。", "This is not a demonstration: nodes cannot be killed from the page.";
    tabs_close: "关闭那个标签页，就等于杀死它。", "Close that tab to kill it.";
    you: "就是我", "this tab";
    relays: "中继", "relays";
    owner: "所有者", "owner";
    not_owner: "不存数据", "owns no data";

    keys_title: "键与版本", "Keys and versions";
    keys_lead: "请求由本标签页自己的节点执行：它联系所有者、清点选票。", "Requests run on this tab's own node: it asks the owners and counts the votes.";
    keys_need_node: "读写需要一个节点：请先加入。", "Reading and writing need a node: join first.";
    keys_starting: "节点正在加入集群…", "This tab's node is still joining…";
    keys_loading: "正在列出…", "listing…";
    keys_no_match: "没有以此开头的键。", "No key begins with this.";
    key: "键", "Key";
    value: "值", "Value";
    put: "写入", "Put";
    put_sibling: "写为并发版本", "Put as a sibling";
    get: "读取", "Get";
    delete: "删除", "Delete";
    delete_sure: "真的删除吗？", "Really delete?";
    prefix: "前缀", "Prefix";
    keys_empty: "还没有键。写一个试试。", "No keys yet. Write one.";
    choose_key: "选一个键看它的版本，或在上面写一个新键。", "Choose a key to see its versions, or write a new one above.";
    siblings: "个并发版本", "siblings";
    siblings_lead: "这些值是并发写入的，没有一个被悄悄丢掉。选定一个，或写一个新值取代它们。", "These were written concurrently and none was silently dropped. Keep one, or write a new value that supersedes them.";
    keep_this: "保留这个", "Keep this";
    no_value: "没有值", "No value";
    answered_by: "回答者", "answered by";
    held_by: "已持久化于", "held by";
    minted_by: "铸点者", "minted by";
    owners: "所有者", "Owners";
    more: "更多", "More";
    working: "进行中…", "working…";

    members_title: "成员", "Members";
    members_lead: "这是本节点从流言里得知的。流言只说谁够得着，从不决定谁说了算。", "What this node knows by gossip. Gossip says who can be reached and never decides who counts.";
    name: "名字", "Name";
    state: "状态", "State";
    class: "种类", "Kind";
    boot: "启动次数", "Boot";
    incarnation: "化身", "Incarnation";
    durability: "持久性", "Durability";
    address: "地址或中继", "Address or relays";
    owns: "所有者", "Owner";
    id: "编号", "Id";
    spare: "还可失去的服务器", "servers that may still fail";

    node_title: "本节点", "This node";
    node_lead: "运行在这个标签页的工作线程里，与服务器是同一份核心代码。", "Runs in this tab's worker: the same core as the servers.";
    identity: "身份", "Identity";
    storage: "存储", "Storage";
    storage_durable: "持久：答复之前日志已同步", "durable: the journal is synced before any answer";
    storage_volatile: "易失：刷新后是一个新节点", "volatile: after a reload this is a new node";
    storage_persisted: "浏览器承诺不清除", "the browser promised not to evict it";
    storage_best_effort: "浏览器可能在空间不足时清除", "the browser may evict it when space runs out";
    journal: "日志", "Journal";
    syncs: "次同步", "syncs";
    last_sync: "上次同步", "Last sync";
    worker_lag: "定时器迟到", "Timer lag";
    first_gossip: "打开页面到首次收到消息", "From opening the page to the first message";
    inputs: "已处理输入", "Inputs handled";
    sockets: "连接", "Links";
    no_links: "没有连接", "no links";
    reason: "说明", "Note";
    diagnostics: "复制诊断信息", "Copy diagnostics";
    copied: "已复制", "Copied";
    restart_node: "从存储重启节点", "Restart the node from storage";
    crashed_lead: "本标签页的节点停了。它存下的一切还在。", "This tab's node has stopped. Everything it stored is still there.";
    watching_lead: "正在旁观：本标签页没有运行节点。", "Watching: this tab runs no node.";

    help_title: "快捷键", "Keyboard";
    help_screens: "切换页面", "Screens";
    help_pause: "暂停 / 继续画面", "Pause or play the view";
    help_step: "单步", "One step";
    help_speed: "放慢 / 加快", "Slower, faster";
    help_table: "图形 / 表格（舞台）", "Picture or table (Stage)";
    help_language: "切换语言", "Change language";
    help_theme: "切换主题", "Change theme";
    help_filter: "去筛选框（舞台、键值）", "Go to the filter (Stage, Keys)";
    help_kill: "去“杀死”按钮（舞台，先选中节点）", "Go to Kill (Stage, with a server selected)";
    help_help: "显示本表", "This sheet";
    help_arrows: "在节点间移动（舞台）", "Move between nodes (Stage)";
    help_escape: "取消选择", "Select nothing";
}

/// A state's name.
#[must_use]
pub fn state(language: Language, state: State) -> &'static str {
    match (language, state) {
        (Language::Chinese, State::Alive) => "存活",
        (Language::Chinese, State::Suspect) => "可疑",
        (Language::Chinese, State::Dead) => "已死",
        (Language::Chinese, State::Left) => "已离开",
        (Language::English, State::Alive) => "alive",
        (Language::English, State::Suspect) => "suspect",
        (Language::English, State::Dead) => "dead",
        (Language::English, State::Left) => "left",
    }
}

/// A class's name.
#[must_use]
pub fn class(language: Language, class: Class) -> &'static str {
    match (language, class) {
        (Language::Chinese, Class::Server) => "服务器",
        (Language::Chinese, Class::Tab) => "标签页",
        (Language::English, Class::Server) => "server",
        (Language::English, Class::Tab) => "tab",
    }
}

/// A durability's name.
#[must_use]
pub fn durability(language: Language, durability: Durability) -> &'static str {
    match (language, durability) {
        (Language::Chinese, Durability::Durable) => "持久",
        (Language::Chinese, Durability::Volatile) => "易失",
        (Language::English, Durability::Durable) => "durable",
        (Language::English, Durability::Volatile) => "volatile",
    }
}

/// A family of messages.
#[must_use]
pub fn family(language: Language, family: Family) -> &'static str {
    match (language, family) {
        (Language::Chinese, Family::Membership) => "流言与探测",
        (Language::Chinese, Family::Topology) => "纪元",
        (Language::Chinese, Family::Read) => "读",
        (Language::Chinese, Family::Write) => "写",
        (Language::Chinese, Family::Acknowledge) => "确认",
        (Language::Chinese, Family::Repair) => "修复",
        (Language::English, Family::Membership) => "gossip and probes",
        (Language::English, Family::Topology) => "epochs",
        (Language::English, Family::Read) => "reads",
        (Language::English, Family::Write) => "writes",
        (Language::English, Family::Acknowledge) => "acknowledgements",
        (Language::English, Family::Repair) => "repair",
    }
}

/// An operation's name.
#[must_use]
pub fn operation(language: Language, kind: OpKind) -> &'static str {
    match (language, kind) {
        (Language::Chinese, OpKind::Get) => "读取",
        (Language::Chinese, OpKind::Put) => "写入",
        (Language::Chinese, OpKind::Delete) => "删除",
        (Language::Chinese, OpKind::List) => "列举",
        (Language::English, OpKind::Get) => "get",
        (Language::English, OpKind::Put) => "put",
        (Language::English, OpKind::Delete) => "delete",
        (Language::English, OpKind::List) => "list",
    }
}

/// Why a request was not done, and what to do.
#[must_use]
pub fn refusal(language: Language, refusal: &Refusal) -> String {
    if language == Language::English {
        return format!("{}: {refusal}", refusal.code());
    }
    let what = match refusal {
        Refusal::NoQuorum { answered, needed } => {
            format!("期限内只有 {answered} 个副本应答，需要 {needed} 个；什么都没有写入；等更多所有者可达后再试")
        }
        Refusal::TimeoutUnknown { acked, needed } => {
            format!("期限内有 {acked} 个副本确认，需要 {needed} 个；写入可能仍会生效；请以同一请求编号重试")
        }
        Refusal::NoEpoch => "本节点还不属于任何集群；请用 --bootstrap 启动一个节点，或加入已有集群".to_owned(),
        Refusal::WrongEpoch { mine, theirs } => format!("副本处于纪元 {}，请求来自纪元 {}；请重试", mine.0, theirs.0),
        Refusal::StaleRound { mine, theirs } => {
            format!("消息发出之后删除记录已被清理：消息属于第 {} 轮，副本在第 {} 轮；请重试", theirs.0, mine.0)
        }
        Refusal::BadLevel { replicas } => format!("共有 {replicas} 个副本，R 与 W 必须过半且不超过 {replicas}"),
        Refusal::TooLarge { limit } => format!("超过 {limit} 字节的上限"),
        Refusal::TooManySiblings => "并发版本太多；请先读取，再带着上下文写入".to_owned(),
        Refusal::InvalidContext => "上下文提到了从未发生的写入；请使用读取所得的上下文".to_owned(),
        Refusal::Overloaded => "请求太多；什么都没有做；请稍后再试".to_owned(),
        Refusal::NotAnOwner => "该副本不是此键的所有者；请重试".to_owned(),
        Refusal::DiskFull => "能问到的所有者的磁盘都满了；什么都没有写入；腾出空间后会自动恢复".to_owned(),
        Refusal::Leaving => "本节点正在离开集群；请问别的节点".to_owned(),
    };
    format!("{}：{what}", refusal.code())
}

/// Why there is no link or no node, as hosts and browsers tell it: a code, then a sentence in English. Every code of
/// ours has a sentence in Chinese, too; what a browser says in its own words is quoted.
#[must_use]
pub fn trouble(language: Language, text: &str) -> String {
    let code = text.split(':').next().unwrap_or_default();
    let known = match (language, code) {
        (Language::English, _) => None,
        (Language::Chinese, "UNREACHABLE") => Some("那里没有服务器应答，或它拒绝了本页面"),
        (Language::Chinese, "WRONG_CLUSTER") => Some("对方属于另一个集群"),
        (Language::Chinese, "VERSION_UNSUPPORTED") => Some("双方的协议或格式版本不同"),
        (Language::Chinese, "DUPLICATE_NODE_ID") => Some("对方与本节点使用同一身份"),
        (Language::Chinese, "BAD_SIGNATURE") => Some("对方不能证明自己持有密钥"),
        (Language::Chinese, "STORAGE_LOST") => Some("日志已丢失或不属于此身份，因此以新节点的身份回来"),
        (Language::Chinese, "CORRUPT_RECORD") => Some("日志已损坏，因此以新节点的身份回来"),
        (Language::Chinese, "DISK_FAILED") => Some("浏览器无法保存数据，节点已停止"),
        (Language::Chinese, "NO_IDENTITY") => Some("浏览器无法生成密钥"),
        (Language::Chinese, "BAD_HANDSHAKE") => Some("对方的握手不合协议"),
        (Language::Chinese, "BAD_CONFIG") => Some("节点的设置有误，无法启动"),
        (Language::Chinese, "NOT_A_RECORDING") => Some("这不是录像文件"),
        (Language::Chinese, "CORRUPT_RECORDING") => Some("录像文件已损坏"),
        (Language::Chinese, "RECORDING_DIVERGED") => Some("重放得到了不同的状态：录像由另一版本的程序录制"),
        (Language::Chinese, "NO_WORKER") => Some("浏览器无法启动后台线程"),
        (Language::Chinese, _) => None,
    };
    match (language, known) {
        (_, Some(known)) => format!("{code}：{known}"),
        (Language::English, None) => text.to_owned(),
        (Language::Chinese, None) => format!("浏览器或对方的原话：{text}"),
    }
}

/// An event as a sentence. `name` says what people call a node.
#[must_use]
pub fn explain(language: Language, event: &Event, name: &impl Fn(NodeId) -> String) -> String {
    let who = name(event.node);
    match language {
        Language::Chinese => explain_chinese(&who, &event.kind, name),
        Language::English => explain_english(&who, &event.kind, name),
    }
}

fn list(nodes: &[NodeId], name: &impl Fn(NodeId) -> String, between: &str) -> String {
    nodes.iter().map(|&node| name(node)).collect::<Vec<_>>().join(between)
}

fn explain_english(who: &str, kind: &EventKind, name: &impl Fn(NodeId) -> String) -> String {
    match kind {
        EventKind::Started => format!("{who} started"),
        EventKind::Slept { span } => {
            format!("{who} was asleep for {} s and suspects nobody for it", span.as_millis() / 1_000)
        }
        EventKind::DiskFull { full: true } => format!("the disk of {who} is full: it stores nothing new for now"),
        EventKind::DiskFull { full: false } => format!("{who} has room on its disk again"),
        EventKind::Sent { to, kind, .. } => format!("{who} sent {kind:?} to {}", list(to, name, ", ")),
        EventKind::Received { message, kind } => format!("{who} got {kind:?} from {}", name(message.node)),
        EventKind::Membership(event) => match event {
            MembershipEvent::Joined(member) => {
                format!("{who} met {} (boot {})", member.profile.name, member.generation.0)
            }
            MembershipEvent::Changed(member) => {
                let state = state(Language::English, member.state);
                format!("{who} now holds {} {state}", member.profile.name)
            }
            MembershipEvent::AskedOthers { target, helpers } => {
                format!("{who} got no answer from {} and asks {} to try", name(*target), list(helpers, name, " and "))
            }
            MembershipEvent::Refuted { incarnation } => {
                format!("{who} heard that it was suspected and refutes it as incarnation {incarnation}")
            }
            MembershipEvent::Conflict { generation } => {
                format!("{who} heard of another process under its own id (boot {})", generation.0)
            }
            MembershipEvent::Forgot(node) => format!("{who} forgot {}", name(*node)),
        },
        EventKind::Topology(event) => match event {
            TopologyEvent::Bootstrapped(config) => format!(
                "{who} made epoch {}: {} owners, {} copies of each key",
                config.epoch.0,
                config.storage.len(),
                config.replicas
            ),
            TopologyEvent::Adopted(config) => format!("{who} adopted epoch {}", config.epoch.0),
            TopologyEvent::RefusedCluster { from, .. } => {
                format!("{who} refused {}'s config: it belongs to another cluster", name(*from))
            }
        },
        EventKind::Kv(event) => match event {
            KvEvent::Began { kind, key, owners, needed, .. } => {
                let what = operation(Language::English, *kind);
                format!("{who} began {what} “{key}”: {needed} of {} owners must agree", owners.len())
            }
            KvEvent::Handed { to, attempt: 1, .. } => format!("{who} handed the write to {}, an owner", name(*to)),
            KvEvent::Handed { to, attempt, .. } => {
                format!("{who} got no answer and handed the write to {} (attempt {attempt})", name(*to))
            }
            KvEvent::Minted { key, dot, .. } => format!("{who} minted version {} of “{key}”", dot.counter),
            KvEvent::Counted { phase, from, have, needed, .. } => match phase {
                Phase::Reading => format!("{who} counts {have} of {needed}: {} answered", name(*from)),
                Phase::Writing => format!("{who} counts {have} of {needed}: {} holds it durably", name(*from)),
            },
            KvEvent::Finished { refusal: None, .. } => format!("{who} has its quorum: done"),
            KvEvent::Finished { refusal: Some(refusal), .. } => format!("{who} gave up: {}", refusal.code()),
            KvEvent::Collected { partition, round, keys } => format!(
                "all owners hold the same deletes: {who} forgot {keys} keys; round {} of partition {} begins",
                round.0, partition.0
            ),
            KvEvent::Repaired { key, from } => {
                format!("{who} was behind on “{key}”; {} brought it up to date", name(*from))
            }
        },
    }
}

fn explain_chinese(who: &str, kind: &EventKind, name: &impl Fn(NodeId) -> String) -> String {
    match kind {
        EventKind::Started => format!("{who} 启动了"),
        EventKind::Slept { span } => format!("{who} 睡了 {} 秒，不因此怀疑任何人", span.as_millis() / 1_000),
        EventKind::DiskFull { full: true } => format!("{who} 的磁盘满了：暂不存储新的数据"),
        EventKind::DiskFull { full: false } => format!("{who} 的磁盘又有空间了"),
        EventKind::Sent { to, kind, .. } => format!("{who} 向 {} 发出 {kind:?}", list(to, name, "、")),
        EventKind::Received { message, kind } => format!("{who} 收到 {} 的 {kind:?}", name(message.node)),
        EventKind::Membership(event) => match event {
            MembershipEvent::Joined(member) => {
                format!("{who} 认识了 {}（第 {} 次启动）", member.profile.name, member.generation.0)
            }
            MembershipEvent::Changed(member) => {
                format!("{who} 认为 {} {}", member.profile.name, state(Language::Chinese, member.state))
            }
            MembershipEvent::AskedOthers { target, helpers } => {
                format!("{who} 等不到 {} 的回音，请 {} 试探", name(*target), list(helpers, name, "、"))
            }
            MembershipEvent::Refuted { incarnation } => format!("{who} 听说自己被怀疑，以化身 {incarnation} 辟谣"),
            MembershipEvent::Conflict { generation } => {
                format!("{who} 听说有别的进程用着自己的编号（第 {} 次启动）", generation.0)
            }
            MembershipEvent::Forgot(node) => format!("{who} 忘掉了 {}", name(*node)),
        },
        EventKind::Topology(event) => match event {
            TopologyEvent::Bootstrapped(config) => format!(
                "{who} 创立纪元 {}：{} 个所有者，每键 {} 份",
                config.epoch.0,
                config.storage.len(),
                config.replicas
            ),
            TopologyEvent::Adopted(config) => format!("{who} 采纳纪元 {}", config.epoch.0),
            TopologyEvent::RefusedCluster { from, .. } => {
                format!("{who} 拒绝了 {} 的配置：属于另一个集群", name(*from))
            }
        },
        EventKind::Kv(event) => match event {
            KvEvent::Began { kind, key, owners, needed, .. } => {
                let what = operation(Language::Chinese, *kind);
                format!("{who} 开始{what}“{key}”：{} 个所有者中需要 {needed} 个", owners.len())
            }
            KvEvent::Handed { to, attempt: 1, .. } => format!("{who} 把写入交给所有者 {}", name(*to)),
            KvEvent::Handed { to, attempt, .. } => {
                format!("{who} 没等到回音，改交给 {}（第 {attempt} 次）", name(*to))
            }
            KvEvent::Minted { key, dot, .. } => format!("{who} 为“{key}”铸出第 {} 点", dot.counter),
            KvEvent::Counted { phase, from, have, needed, .. } => match phase {
                Phase::Reading => format!("{who} 计票 {have}/{needed}：{} 已应答", name(*from)),
                Phase::Writing => format!("{who} 计票 {have}/{needed}：{} 已持久保存", name(*from)),
            },
            KvEvent::Finished { refusal: None, .. } => format!("{who} 达到法定票数：完成"),
            KvEvent::Finished { refusal: Some(refusal), .. } => format!("{who} 放弃：{}", refusal.code()),
            KvEvent::Collected { partition, round, keys } => format!(
                "所有所有者都持有相同的删除记录：{who} 忘掉 {keys} 个键，分区 {} 进入第 {} 轮",
                partition.0, round.0
            ),
            KvEvent::Repaired { key, from } => format!("{who} 的“{key}”落后了，由 {} 补齐", name(*from)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_trouble_speaks_the_language_and_an_unknown_one_is_passed_on() {
        assert!(trouble(Language::Chinese, "WRONG_CLUSTER: the peer …").starts_with("WRONG_CLUSTER：对方"));
        assert_eq!(trouble(Language::Chinese, "something else"), "浏览器或对方的原话：something else");
        assert_eq!(trouble(Language::English, "WRONG_CLUSTER: x"), "WRONG_CLUSTER: x");
    }

    #[test]
    fn tags_read_back() {
        for language in [Language::Chinese, Language::English] {
            assert_eq!(Language::from_tag(language.tag()), language);
            assert_eq!(language.other().other(), language);
        }
        assert_eq!(Language::from_tag("zh-Hant-TW"), Language::Chinese);
        assert_eq!(Language::from_tag("de"), Language::English);
    }
}
