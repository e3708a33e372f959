//! Everything the page says, in Chinese and English. A text that one language lacks does not compile.

use qunlong_core::Refusal;
use qunlong_core::config::MembershipConfig;
use qunlong_core::kv::OpKind;
use qunlong_core::lift::Family;
use qunlong_core::member::{Class, Durability, Load, Member, State};
use qunlong_core::namespace::Mode;

use crate::epochs::Mark;
use crate::overlap::Counts;
use crate::ownership::Share;
use crate::rounds::{End, Round};
use crate::stale::Reads;

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
    topology: "拓扑", "Topology";
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

    consensus: "共识", "Consensus";
    rounds_title: "一轮又一轮的共识", "Rounds of consensus";
    rounds_lead: "寄存器没有领导者：任何所有者都可以提案，多数接受者接受即被选定。最新的在最上面。", "A register has no leader: any of its owners may propose, and what a majority of them accepts is chosen. The newest round comes first.";
    rounds_empty: "还没有轮次。请读写右边的寄存器。", "No rounds yet. Read or change the register beside.";
    register: "寄存器", "A register";
    register_lead: "所有操作有唯一的顺序，无论经过哪个节点。", "All operations have one order, whichever nodes they go through.";
    if_version: "仅当版本为", "Only if its version is";
    any_version: "任意", "any";
    add_one: "加一", "Add 1";
    of_version: "版本", "version";
    ballot: "选票", "ballot";
    proposer: "提案者", "proposer";
    round_read: "读取", "read";
    round_chosen: "已选定", "chosen";
    round_agreed: "多数一致", "a majority agrees";
    round_outbid: "被抢先", "outbid";
    round_followed: "以新一轮继续", "went on as another round";
    how_paxos: "看到的是什么", "What you see";
    how_prepare: "提案者拿一张比所有听说过的都高的选票，请接受者不再接受更低的；每个承诺都带上它已接受的值。", "The proposer takes a ballot above all it has heard of and asks the acceptors to take nothing below; each promise says what its acceptor has accepted.";
    how_accept: "提案者提出最高选票下的值，按请求修改之后。多数接受：选定。", "It proposes the value under the highest ballot, changed as the requests ask. A majority accepts: chosen.";
    how_at_once: "每次接受也预先承诺同一提案者的下一张选票，所以下一轮只需一个来回。", "Each acceptance promises the same proposer's next ballot as well, so its next round takes one round trip.";
    how_read: "读取不需要选票：多数报告同一张选票，就是现值；不一致则走完两个阶段。", "A read needs no ballot: where a majority reports the same one, that is the value; where they differ, it goes through both phases.";

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

    namespace: "命名空间", "Namespace";
    namespace_unknown: "没有，或本节点尚未得知", "none, or not known here yet";
    namespace_new: "新建命名空间", "New namespace";
    namespace_name: "名字", "Name";
    namespace_rule: "1 至 32 个小写字母、数字或连字符，以字母开头。命名空间建立后不能更改，也不能删除。", "1 to 32 small letters, digits and hyphens, a letter first. What a namespace is stays as it is, and it cannot be removed.";
    namespace_copies: "每键份数（1 至 7）", "Copies of each key (1 to 7)";
    guarantee: "保证", "Guarantee";
    create: "建立", "Create";
    created: "已建立", "created";
    atomic_only: "保证为 atomic 的寄存器只能读取与写入；条件与计数需要 consensus。", "Registers of mode atomic are read and set; conditions and counters need mode consensus.";

    counts: "法定数 R 与 W", "Quorums R and W";
    counts_lead: "读取要等 R 个所有者应答，写入要等 W 个所有者持有；本页的读写都按这里的数执行。", "A read waits for answers of R owners, a write until W owners hold it. What is read and written on this screen goes by these.";
    counts_majority: "此命名空间的保证是 quorum：少于半数时读取可能错过写入，因此核心会以 BAD_LEVEL 拒绝，滑块也从过半数开始。只有 eventual 允许更少。", "This namespace is of mode quorum: below a majority a read could miss a write, so the core refuses it with BAD_LEVEL, and the sliders begin at a majority. Only mode eventual allows less.";
    counts_any: "此命名空间的保证是 eventual：从 1 到 N 都允许，通常是 1。", "This namespace is of mode eventual: anything from 1 to N is allowed, and 1 is usual.";
    count_read: "R：应答读取的所有者", "R: owners that answer a read";
    count_write: "W：持有写入的所有者", "W: owners that hold a write";
    part_both: "持有写入，也应答读取", "holds the write and answers the read";
    part_holds: "持有写入，不应答读取", "holds the write and does not answer the read";
    part_answers: "应答读取，没有该写入", "answers the read without the write";
    part_neither: "两者都不", "neither";
    worst_case: "最坏的情形：写入落在左边的所有者，读取由右边的应答。", "The worst case: the write is with the owners on the left, and those on the right answer the read.";
    measure: "测量旧读", "Measure stale reads";
    measure_lead: "反复写一个临时键，每次得到确认就立即读取，轮流经由本标签页的节点和每个服务器；最后删除该键。", "Writes a scratch key again and again and reads it as soon as each write is acknowledged, in turn through this tab's node and each server; the key is deleted in the end.";
    read_through: "读取经由（错过 / 应答）", "read through (missed / answered)";

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
    zone: "区域", "Zone";
    version: "版本", "Version";
    drowsy: "隐藏", "hidden";
    load: "负载", "Load";
    mobile: "手机", "phone";
    drowsy_means: "这个标签页被隐藏，随时可能沉默；那不等于死亡", "The tab is hidden and may fall silent at any time, which does not mean that it is dead";

    recovering: "多数派已失去，幸存者建立了新集群，正在合并各自的数据；合并完成之前不提供服务。", "A majority was lost. Survivors have begun a new cluster and merge what they hold; until that is done nobody is served.";
    learning: "新成员先学习", "Newcomers learn first";
    learning_unheard: "尚未应答", "no answer yet";
    learning_lead: "变更开始之前，将成为所有者的成员先取得它们的数据，这样两组都要点头的时间就短。", "Before a change begins, members that are to own fetch their data, so that the time in which both groups must agree is short.";

    rumour_title: "流言如何传开", "How a rumour spread";
    rumour_lead: "至少两个节点讲到的最新消息；时间取自各节点自己的时钟。消息也搭乘探测与全量交换，所以可能比预测传得快。", "The newest claim that at least two nodes told of, timed by each node's own clock. Claims also ride on probes and full exchanges, so they may be faster than predicted.";
    rumour_empty: "还没有哪个消息被两个节点讲到。打开或关闭一个标签页，就会有一条流言传开。", "No claim yet that two nodes told of. Open or close a tab, and a rumour will spread.";
    rumour_picture: "知道这条流言的节点数随时间的变化", "How many nodes know the rumour, over time";
    rumour_know: "知情的节点", "nodes that know";
    rumour_ms: "第一个节点知道之后的毫秒数", "ms after the first node knew";
    rumour_seen: "实际", "seen";
    rumour_branch: "谁告诉了谁", "who told whom";
    rumour_after: "之后", "After";
    rumour_from: "听谁说的", "Heard from";
    rumour_itself: "自己发现", "found out itself";
    rumour_untold: "它的话没有到达本页，但它告诉了别人", "Its own word did not reach this page, but it told others";

    topology_lead: "谁存数据、谁投票：由投票者选定，一个纪元接着一个纪元。一切法定票数都由此计算，从不由流言计算。", "Who owns data and who votes: chosen by the voters, one epoch after the other. Every quorum is counted from this, never from gossip.";
    topology_none: "这里还不知道任何纪元。", "No epoch is known here yet.";
    settled: "已定", "settled";
    joint: "变更进行中：新旧两组都须同意", "joint: a change is under way, both groups must agree";
    copies: "每键份数", "copies (N)";
    votes_needed: "须有的票数", "votes needed";
    tabs_alone: "只有标签页持有数据：它们全部关闭之后，什么都不会留下。", "Only tabs hold the data: nothing outlives the closing of the tabs.";
    seats: "席位", "Seats";
    weight: "权重", "Weight";
    votes: "投票", "Votes";
    partitions: "分区", "Partitions";
    joins: "加入", "joins";
    leaves: "离开", "leaves";
    unknown: "未知", "unknown";
    who_owns: "谁拥有什么", "Who owns what";
    who_owns_lead: "每个方格是 256 个分区之一，颜色属于它的第一个所有者。选中一个成员，看它拥有哪些；圆点表示它不是第一个。", "Each square is one of the 256 partitions, in the colour of its first owner. Choose a member to see what it owns; a dot means that it is not the first.";
    who_owns_moves: "画斜线的方格正在更换所有者。", "Hatched squares are getting other owners.";
    partition: "分区", "Partition";
    owners_next: "将来的所有者", "Owners to come";
    change: "变更", "The change";
    change_under_way: "进行中", "under way";
    change_completed: "已完成", "completed";
    change_given_up: "已放弃", "given up";
    change_joins: "加入者", "Joins";
    change_leaves: "离开者", "Leaves";
    change_weighs: "权重", "Weights";
    change_moved: "更换所有者的分区", "Partitions moved";
    change_picture: "新旧两组投票者各自进行到哪一步", "How far the voters of both groups are";
    nobody: "无", "nobody";
    old_group: "旧组", "Old group";
    new_group: "新组", "New group";
    both_groups: "结束变更需要两组各自过半", "What ends the change needs a majority of both";
    voter: "投票者", "Voter";
    group: "组", "Group";
    mark_silent: "尚无消息", "not heard yet";
    mark_reported: "已报告", "has reported";
    mark_promised: "已承诺", "has promised";
    mark_accepted: "已接受", "has accepted";
    taking_over: "接管", "Taking over";
    fetched: "取得的数据", "Fetched";
    epochs_told: "纪元如何选定", "How epochs were chosen";
    epochs_told_lead: "先承诺（阶段一），后接受（阶段二），过半即选定。一次变更要这样选定两次。最新的在上。", "First promises (phase 1), then acceptances (phase 2); a majority chooses. A change takes two such decisions. The newest is on top.";
    epochs_told_empty: "打开本页以来还没有变更。", "No change since this page was opened.";

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
    help_table: "图形 / 表格（舞台、拓扑）", "Picture or table (Stage, Topology)";
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

/// How much a member's host has to do.
#[must_use]
pub fn load(language: Language, load: Load) -> &'static str {
    match (language, load) {
        (Language::Chinese, Load::Light) => "轻",
        (Language::Chinese, Load::Busy) => "忙",
        (Language::Chinese, Load::Full) => "满",
        (Language::English, Load::Light) => "light",
        (Language::English, Load::Busy) => "busy",
        (Language::English, Load::Full) => "full",
    }
}

/// A guarantee's name; the English word is also what commands and requests call it.
#[must_use]
pub fn mode(language: Language, mode: Mode) -> &'static str {
    match (language, mode) {
        (Language::English, mode) => mode.name(),
        (Language::Chinese, Mode::Eventual) => "最终一致 eventual",
        (Language::Chinese, Mode::Quorum) => "法定多数 quorum",
        (Language::Chinese, Mode::Atomic) => "原子 atomic",
        (Language::Chinese, Mode::Consensus) => "共识 consensus",
    }
}

/// What a guarantee promises.
#[must_use]
pub fn promise(language: Language, mode: Mode) -> &'static str {
    match (language, mode) {
        (Language::Chinese, Mode::Eventual) => {
            "每个请求自定等几个所有者，通常一个：读取可能错过写入，并发的写入成为并发版本。"
        }
        (Language::Chinese, Mode::Quorum) => "读写都要过半：读取不会错过已确认的写入，并发的写入成为并发版本。",
        (Language::Chinese, Mode::Atomic) => "寄存器的读写有唯一的顺序，不用共识：没有条件，也没有计数。",
        (Language::Chinese, Mode::Consensus) => "寄存器的所有操作有唯一的顺序，由共识决定：有条件，也有计数。",
        (Language::English, Mode::Eventual) => {
            "Each request says how many owners it waits for, usually one: a read may miss a write, and concurrent \
             writes become siblings."
        }
        (Language::English, Mode::Quorum) => {
            "Majorities: a read misses no acknowledged write, and concurrent writes become siblings."
        }
        (Language::English, Mode::Atomic) => {
            "Registers whose reads and writes have one order, without consensus: no conditions, no counters."
        }
        (Language::English, Mode::Consensus) => {
            "Registers whose operations all have one order, by consensus: with conditions and counters."
        }
    }
}

/// Whether every read meets every write.
#[must_use]
pub fn overlap(language: Language, counts: Counts) -> String {
    let Counts { n, r, w } = counts;
    match (language, counts.overlap()) {
        (Language::Chinese, 0) => format!("R + W ≤ N（{r} + {w} ≤ {n}）：两者不必相交，读取可能错过最近的写入"),
        (Language::Chinese, least) => {
            format!("R + W > N（{r} + {w} > {n}）：每个读取的法定集合与每个写入的法定集合至少有 {least} 个共同的所有者")
        }
        (Language::English, 0) => {
            format!("R + W ≤ N ({r} + {w} ≤ {n}): they need not meet: a read may miss the last write")
        }
        (Language::English, least) => {
            let owners = if least == 1 { "owner" } else { "owners" };
            format!(
                "R + W > N ({r} + {w} > {n}): every read quorum meets every write quorum in at least {least} {owners}"
            )
        }
    }
}

/// How many reads missed the write before them, by which counts and in which namespace.
#[must_use]
pub fn stale(language: Language, reads: Reads, counts: Counts, namespace: &str) -> String {
    let Reads { answered, missed, unanswered } = reads;
    let Counts { n, r, w } = counts;
    let told = match language {
        Language::Chinese => {
            format!("{answered} 次读取中有 {missed} 次错过最近确认的写入（{namespace}，N = {n}，R = {r}，W = {w}）")
        }
        Language::English => format!(
            "{missed} of {answered} reads missed the last acknowledged write ({namespace}, N = {n}, R = {r}, W = {w})"
        ),
    };
    match (language, unanswered) {
        (_, 0) => told,
        (Language::Chinese, more) => format!("{told}；另有 {more} 次没有应答"),
        (Language::English, more) => format!("{told}; {more} more were not answered"),
    }
}

/// A claim about a member.
#[must_use]
pub fn claim(language: Language, member: &Member) -> String {
    let (name, state) = (&member.profile.name, state(language, member.state));
    let (boot, incarnation) = (member.generation.0, member.incarnation);
    match language {
        Language::Chinese => format!("“{name} {state}”（第 {boot} 次启动，化身 {incarnation}）"),
        Language::English => format!("“{name} is {state}” (boot {boot}, incarnation {incarnation})"),
    }
}

/// What the predicted curve of a rumour assumes.
#[must_use]
pub fn prediction(language: Language, settings: &MembershipConfig) -> String {
    let (fanout, ms) = (settings.gossip_fanout, settings.gossip_interval.as_millis());
    match language {
        Language::Chinese => format!("仅靠流言的预测：每个知情者每 {ms} 毫秒随机告诉 {fanout} 个成员"),
        Language::English => {
            format!("predicted for rumours alone: everybody who knows tells {fanout} members at random every {ms} ms")
        }
    }
}

/// How much of the partitions is one member's.
#[must_use]
pub fn share(language: Language, share: Share) -> String {
    match language {
        Language::Chinese => format!("{} 个，其中 {} 个排第一", share.owned, share.first),
        Language::English => format!("{}, first of {}", share.owned, share.first),
    }
}

/// How many of a group have accepted.
#[must_use]
pub fn accepted(language: Language, have: usize, needed: u8) -> String {
    match language {
        Language::Chinese => format!("接受 {have}/{needed}"),
        Language::English => format!("accepted {have}/{needed}"),
    }
}

/// How far a voter is.
#[must_use]
pub fn mark(language: Language, mark: Mark) -> &'static str {
    let texts = language.texts();
    match mark {
        Mark::Silent => texts.mark_silent,
        Mark::Reported => texts.mark_reported,
        Mark::Promised => texts.mark_promised,
        Mark::Accepted => texts.mark_accepted,
    }
}

/// Why an acceptor has refused.
#[must_use]
pub fn refused_for(language: Language, counter: u64, rival: &str) -> String {
    match language {
        Language::Chinese => format!("拒绝：已向 {rival} 承诺选票 {counter}"),
        Language::English => format!("refused: it has promised ballot {counter} to {rival}"),
    }
}

/// A round on a register, in a sentence.
#[must_use]
pub fn round(language: Language, round: &Round) -> String {
    let (heard, accepted) = round.have;
    let (first, second) = round.needed;
    let version = round.version.unwrap_or_default();
    match (language, round.ballot, round.end) {
        (Language::Chinese, None, Some(End::Agreed)) => format!("多数报告同一张选票：第 {version} 版，一个来回读到"),
        (Language::Chinese, None, _) => format!("{heard} 个已报告，须有 {first} 个一致"),
        (Language::English, None, Some(End::Agreed)) => {
            format!("a majority reports the same ballot: version {version}, read in one round trip")
        }
        (Language::English, None, _) => format!("{heard} have reported, {first} must agree"),
        (Language::Chinese, Some(_), _) => {
            let phase1 = match (round.at_once, round.disagreed) {
                (true, _) => "第一阶段已省去；".to_owned(),
                // Of mode atomic: no promises are asked for.
                (false, _) if first == 0 => String::new(),
                (false, true) => format!("读取不一致，因此：{heard}/{first} 个承诺；"),
                (false, false) => format!("{heard}/{first} 个承诺；"),
            };
            let phase2 = round.version.map(|version| {
                let requests =
                    if round.requests > 1 { format!("（{} 个请求）", round.requests) } else { String::new() };
                format!("第 {version} 版{requests}：{accepted}/{second} 个接受")
            });
            format!("{phase1}{}", phase2.unwrap_or_default())
        }
        (Language::English, Some(_), _) => {
            let phase1 = match (round.at_once, round.disagreed) {
                (true, _) => "phase 1 was left out; ".to_owned(),
                (false, _) if first == 0 => String::new(),
                (false, true) => format!("a read did not agree, hence: {heard} of {first} promises; "),
                (false, false) => format!("{heard} of {first} promises; "),
            };
            let phase2 = round.version.map(|version| {
                let requests =
                    if round.requests > 1 { format!(" for {} requests", round.requests) } else { String::new() };
                format!("version {version}{requests}: {accepted} of {second} acceptances")
            });
            format!("{phase1}{}", phase2.unwrap_or_default())
        }
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
        (Language::Chinese, Family::Consensus) => "共识",
        (Language::English, Family::Membership) => "gossip and probes",
        (Language::English, Family::Topology) => "epochs",
        (Language::English, Family::Read) => "reads",
        (Language::English, Family::Write) => "writes",
        (Language::English, Family::Acknowledge) => "acknowledgements",
        (Language::English, Family::Repair) => "repair",
        (Language::English, Family::Consensus) => "consensus",
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
        Refusal::BadLevel { replicas } => {
            format!("共有 {replicas} 个副本，R 与 W 必须过半且不超过 {replicas}（eventual 模式可从 1 起）")
        }
        Refusal::TooLarge { limit } => format!("超过 {limit} 字节的上限"),
        Refusal::TooManySiblings => "并发版本太多；请先读取，再带着上下文写入".to_owned(),
        Refusal::InvalidContext => "上下文提到了从未发生的写入；请使用读取所得的上下文".to_owned(),
        Refusal::Overloaded => "请求太多；什么都没有做；请稍后再试".to_owned(),
        Refusal::NotAnOwner => "该副本不是此键的所有者；请重试".to_owned(),
        Refusal::DiskFull => "能问到的所有者的磁盘都满了；什么都没有写入；腾出空间后会自动恢复".to_owned(),
        Refusal::Leaving => "本节点正在离开集群；请问别的节点".to_owned(),
        Refusal::CatchingUp => "该副本正从别处接管此键；请重试".to_owned(),
        Refusal::ConfigChangeInProgress { epoch } => {
            format!("另一项变更正在进行或已被选定（纪元 {}）；请查看后再试", epoch.0)
        }
        Refusal::StorageLost => {
            "本节点丢失了它在集群中的位置所属的存储；请在空文件夹中以新节点启动，并移除旧节点".to_owned()
        }
        Refusal::NotAVoter => "被问的节点对配置没有投票权；请重试".to_owned(),
        Refusal::UnknownMember { member } => format!("这里不认识成员 {member}；请先列出成员"),
        Refusal::TooFewMembers { replicas } => {
            format!("剩下的成员不足 {replicas} 个，放不下 {replicas} 份副本；请先增加成员")
        }
        Refusal::LearnerStalled { member, of: 0, .. } => {
            format!("{member} 将得到席位，却没有应答；什么都没有改变；请确认它在运行")
        }
        Refusal::LearnerStalled { member, have, of } => format!(
            "{member} 将得到席位，在它应有的 {of} 个分区中取得了 {have} 个后停滞；什么都没有改变；请确认它能连到所有者"
        ),
        Refusal::MajorityAlive => {
            "活着的成员足以作出决定并提供全部数据；什么都没有做；请移除已失去的成员，或等它们被判定死亡".to_owned()
        }
        Refusal::NotASurvivor => "被问的节点必须是幸存者之一，且不能已在恢复中；什么都没有做".to_owned(),
        Refusal::SurvivorSilent { member } => {
            format!("{member} 没有应答，或丢失了其席位所属的存储；什么都没有做；请只列出在运行的成员")
        }
        Refusal::SurvivorLost { member } => {
            format!(
                "其他幸存者离开原集群之后，{member} 不再应答，现在没有节点提供服务；请去掉失去的成员，再向任一幸存者列出幸存者"
            )
        }
        Refusal::Recovering => "集群刚被恢复，成员正在合并各自的数据；请重试".to_owned(),
        Refusal::NoChange => "什么都不会改变".to_owned(),
        Refusal::Conflict { version } => {
            format!("寄存器现为第 {version} 版，不符合此变更的条件；请读取后再试")
        }
        Refusal::NoNamespace => "没有这个命名空间，或本节点尚未得知；请先建立，或列出现有的命名空间".to_owned(),
        Refusal::WrongMode { mode } => format!("该命名空间的保证是 {mode}，不能这样使用"),
        Refusal::NamespaceExists { mode, .. } => {
            format!("已有同名的命名空间，其保证是 {mode}；命名空间建立后不能更改")
        }
        Refusal::BadNamespace => {
            "命名空间的名字由 1 至 32 个小写字母、数字或连字符组成，以字母开头；副本最多 7 份".to_owned()
        }
        Refusal::NotANumber => "寄存器中不是 64 位整数，或结果会超出范围；什么都没有改变".to_owned(),
        Refusal::SessionExpired { .. } => {
            "自请求首次发出以来，寄存器变更太多，已无人知道它是否执行过；请读取后再决定".to_owned()
        }
        Refusal::TooManyNamespaces { limit } => format!("集群已有 {limit} 个命名空间，不能再多；请使用现有的"),
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
        (Language::Chinese, "NO_SUCH_NODE") => Some("演示中没有这个节点"),
        (Language::Chinese, "NO_SUPERVISOR") => Some("演示的监管进程没有应答；请看节点是否已停止或启动"),
        (Language::Chinese, _) => None,
    };
    match (language, known) {
        (_, Some(known)) => format!("{code}：{known}"),
        (Language::English, None) => text.to_owned(),
        (Language::Chinese, None) => format!("浏览器或对方的原话：{text}"),
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
    fn whether_quorums_meet_is_said_in_both_languages() {
        let says = |language, r, w| overlap(language, Counts { n: 3, r, w });
        assert!(says(Language::English, 1, 2).contains("need not meet"));
        assert!(says(Language::English, 2, 2).ends_with("in at least 1 owner"));
        assert!(says(Language::English, 3, 2).ends_with("in at least 2 owners"));
        assert!(
            says(Language::Chinese, 1, 2).contains("1 + 2 ≤ 3") && says(Language::Chinese, 1, 2).contains("可能错过")
        );
        assert!(says(Language::Chinese, 3, 3).contains("至少有 3 个"));
    }

    #[test]
    fn stale_reads_are_told_with_what_was_not_answered() {
        let counts = Counts { n: 3, r: 1, w: 1 };
        let all = Reads { answered: 50, missed: 0, unanswered: 0 };
        assert!(stale(Language::English, all, counts, "likes").starts_with("0 of 50 reads"));
        let some = Reads { answered: 47, missed: 2, unanswered: 3 };
        assert!(stale(Language::English, some, counts, "likes").ends_with("; 3 more were not answered"));
        assert!(stale(Language::Chinese, some, counts, "likes").contains("47 次读取中有 2 次"));
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
