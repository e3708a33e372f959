//! What nodes told, as sentences in both languages: the story on the stage, and how epochs were chosen.

use std::collections::BTreeMap;

use qunlong_core::kv::{Event as KvEvent, Phase};
use qunlong_core::lift::EventKind;
use qunlong_core::membership::Event as MembershipEvent;
use qunlong_core::registers::{Event as RegisterEvent, Phase as RegisterPhase};
use qunlong_core::topology::{Event as TopologyEvent, Progress, Reason, Step};
use qunlong_core::{Event, NodeId};

use crate::i18n::{Language, operation, refusal, state};

/// An event as a sentence. `name` says what people call a node.
#[must_use]
pub fn explain(language: Language, event: &Event, name: &impl Fn(NodeId) -> String) -> String {
    let who = name(event.node);
    match language {
        Language::Chinese => explain_chinese(&who, &event.kind, name),
        Language::English => explain_english(&who, &event.kind, name),
    }
}

/// How far newcomers are.
fn progress(newcomers: &BTreeMap<NodeId, Progress>, name: &dyn Fn(NodeId) -> String, comma: &str) -> String {
    let far = |(&node, at): (&NodeId, &Progress)| format!("{} {}/{}", name(node), at.have, at.of);
    newcomers.iter().map(far).collect::<Vec<_>>().join(comma)
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
            MembershipEvent::Vanished { target, witnesses } => format!(
                "{who} holds {} gone: nobody listens at its address any more, as {} found out",
                name(*target),
                list(witnesses, name, " and ")
            ),
            MembershipEvent::Forgot(node) => format!("{who} forgot {}", name(*node)),
        },
        EventKind::Topology(event) => match event {
            TopologyEvent::Bootstrapped(config) => format!(
                "{who} made epoch {}: {} owners, {} copies of each key",
                config.epoch.0,
                config.current.owners().count(),
                config.replicas
            ),
            TopologyEvent::Adopted(config) if config.next.is_some() => {
                format!("{who} adopted epoch {}: a change is under way, both groups must agree", config.epoch.0)
            }
            TopologyEvent::Adopted(config) => format!("{who} adopted epoch {}: settled", config.epoch.0),
            TopologyEvent::RefusedCluster { from, .. } => {
                format!("{who} refused {}'s config: it belongs to another cluster", name(*from))
            }
            TopologyEvent::Prepared { epoch, ballot, voters, needed } => format!(
                "{who} asks {} voters what may follow epoch {}, with ballot {}; {needed} must promise",
                voters.len(),
                epoch.0,
                ballot.counter
            ),
            TopologyEvent::Proposed { config, inherited: true, needed, .. } => {
                format!("{who} must propose epoch {} as somebody had before; {needed} must accept", config.epoch.0)
            }
            TopologyEvent::Proposed { config, needed, .. } => {
                format!("{who} proposes epoch {}; {needed} must accept", config.epoch.0)
            }
            TopologyEvent::Counted { from, have, needed, .. } => {
                format!("{who} counts vote {have} of {needed}: {}", name(*from))
            }
            TopologyEvent::Outbid { ballot, from, promised } => format!(
                "{} refused {who}'s ballot {}: it had promised ballot {} of {}",
                name(*from),
                ballot.counter,
                promised.counter,
                name(promised.node)
            ),
            TopologyEvent::Chosen { epoch, .. } => format!("{who} has its quorum: epoch {} is chosen", epoch.0),
            TopologyEvent::Learning { newcomers } => {
                format!("{who} lets newcomers learn before the change: {}", progress(newcomers, name, ", "))
            }
            TopologyEvent::Recovered(config) => format!(
                "{who} began a new cluster in epoch {} with what {} survivors hold",
                config.epoch.0,
                config.current.storage.len()
            ),
            TopologyEvent::Left { .. } => {
                format!("{who} left its cluster, to begin another one with the other survivors")
            }
            TopologyEvent::Stalled { member } => {
                format!("{who} does not begin the change: {} gets no further", name(*member))
            }
            TopologyEvent::Unseated { .. } => {
                format!("{who} has lost the storage that its seat was given to, and takes no part")
            }
            TopologyEvent::Autopilot { reason, steps } => {
                let steps: Vec<String> = steps.iter().map(|wish| step(Language::English, wish, name)).collect();
                format!("{who}'s autopilot: {}; it asks to {}", why(Language::English, *reason, name), steps.join(", "))
            }
        },
        EventKind::Registers(event) => registers_english(who, event, name),
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
                round.0, partition
            ),
            KvEvent::Fetched { partition, from, bytes } => {
                format!("{who} fetched {bytes} bytes of partition {} from {}", partition, name(*from))
            }
            KvEvent::Learnt { partition, have, of } => {
                format!("{who} has learnt partition {partition}, {have} of {of}")
            }
            KvEvent::TookOver { partition, have, of } => {
                format!("{who} has taken over partition {partition}: {have} of {of}")
            }
            KvEvent::Repaired { key, from } => {
                format!("{who} was behind on “{key}”; {} brought it up to date", name(*from))
            }
        },
    }
}

/// Why the autopilot wants a change.
#[must_use]
pub fn why(language: Language, reason: Reason, name: &impl Fn(NodeId) -> String) -> String {
    match (language, reason) {
        (Language::English, Reason::Stuck) => "the change under way cannot be completed".to_owned(),
        (Language::English, Reason::Gone { member }) => format!("{} has been down for too long", name(member)),
        (Language::English, Reason::Closed { member }) => format!("the tab {} was closed", name(member)),
        (Language::English, Reason::Hidden { member }) => format!("the tab {} is hidden", name(member)),
        (Language::English, Reason::Ready { member }) => format!("{} is durable and has stayed", name(member)),
        (Language::English, Reason::Votes) => "other members can vote better".to_owned(),
        (Language::Chinese, Reason::Stuck) => "进行中的变更无法完成".to_owned(),
        (Language::Chinese, Reason::Gone { member }) => format!("{} 离线太久", name(member)),
        (Language::Chinese, Reason::Closed { member }) => format!("标签页 {} 已关闭", name(member)),
        (Language::Chinese, Reason::Hidden { member }) => format!("标签页 {} 被隐藏", name(member)),
        (Language::Chinese, Reason::Ready { member }) => format!("{} 能持久保存且一直在线", name(member)),
        (Language::Chinese, Reason::Votes) => "由别的成员投票更好".to_owned(),
    }
}

/// One wish for the configuration.
#[must_use]
pub fn step(language: Language, step: &Step, name: &impl Fn(NodeId) -> String) -> String {
    match (language, step) {
        (Language::English, Step::Add { member, .. }) => format!("add {}", name(*member)),
        (Language::English, Step::Remove { member }) => format!("remove {}", name(*member)),
        (Language::English, Step::Weight { member, weight }) => format!("give {} weight {weight}", name(*member)),
        (Language::English, Step::Unvote { member }) => format!("move {}'s vote", name(*member)),
        (Language::English, Step::Vote) => "give out votes anew".to_owned(),
        (Language::English, Step::GiveUp) => "give the change up".to_owned(),
        (Language::Chinese, Step::Add { member, .. }) => format!("加入 {}", name(*member)),
        (Language::Chinese, Step::Remove { member }) => format!("移除 {}", name(*member)),
        (Language::Chinese, Step::Weight { member, weight }) => format!("将 {} 的权重设为 {weight}", name(*member)),
        (Language::Chinese, Step::Unvote { member }) => format!("移走 {} 的投票权", name(*member)),
        (Language::Chinese, Step::Vote) => "重新分配投票权".to_owned(),
        (Language::Chinese, Step::GiveUp) => "放弃变更".to_owned(),
        (Language::English, Step::Create { name, namespace }) => format!("create namespace {name}, {}", namespace.mode),
        (Language::Chinese, Step::Create { name, namespace }) => format!("建立命名空间 {name}（{}）", namespace.mode),
    }
}

fn registers_english(who: &str, event: &RegisterEvent, name: &impl Fn(NodeId) -> String) -> String {
    match event {
        RegisterEvent::Asked { key, to, attempt: 1, .. } => {
            format!("{who} asks {} to propose for register “{key}”", name(*to))
        }
        RegisterEvent::Asked { key, to, attempt, .. } => {
            format!("{who} has no answer yet, and asks {} to propose for “{key}” (attempt {attempt})", name(*to))
        }
        RegisterEvent::Reading { key, owners, needed, .. } => {
            format!("{who} asks the {} acceptors of “{key}” what they have accepted; {needed} must agree", owners.len())
        }
        RegisterEvent::Prepared { key, ballot, owners, needed } => format!(
            "Prepare: {who} asks the {} acceptors of “{key}” to take nothing below ballot {}; {needed} must promise",
            owners.len(),
            ballot.counter
        ),
        RegisterEvent::Proposed { key, ballot, version, at_once: true, needed, .. } => format!(
            "Accept: {who} proposes version {version} of “{key}” at once, for ballot {} was promised with the last value; \
             {needed} must accept",
            ballot.counter
        ),
        RegisterEvent::Proposed { key, ballot, version, needed, .. } => format!(
            "Accept: {who} proposes version {version} of “{key}” under ballot {}; {needed} must accept",
            ballot.counter
        ),
        RegisterEvent::Counted { phase, from, have, needed, .. } => {
            let what = match phase {
                RegisterPhase::Reading => "reports",
                RegisterPhase::Preparing => "has promised",
                RegisterPhase::Accepting => "has accepted",
            };
            format!("{who} counts {have}/{needed}: {} {what}", name(*from))
        }
        RegisterEvent::Chosen { key, version, .. } => {
            format!("{who} has a majority: version {version} of “{key}” is chosen")
        }
        RegisterEvent::Agreed { key, version } => {
            format!("a majority agrees on version {version} of “{key}”: {who} has read it in one round trip")
        }
        RegisterEvent::Outbid { ballot, from, promised, .. } => format!(
            "{} refused ballot {} of {who}: it has promised ballot {} to {}",
            name(*from),
            ballot.counter,
            promised.counter,
            name(promised.node)
        ),
        RegisterEvent::Finished { refusal: None, .. } => format!("{who} answers its client: done"),
        RegisterEvent::Finished { refusal: Some(why), .. } => {
            format!("{who} answers its client: {}", refusal(Language::English, why))
        }
        RegisterEvent::Moved { partition, keys } => {
            format!("{who} saw all {keys} registers of partition {partition} with their owners to come")
        }
    }
}

fn registers_chinese(who: &str, event: &RegisterEvent, name: &impl Fn(NodeId) -> String) -> String {
    match event {
        RegisterEvent::Asked { key, to, attempt: 1, .. } => {
            format!("{who} 请 {} 为寄存器“{key}”提案", name(*to))
        }
        RegisterEvent::Asked { key, to, attempt, .. } => {
            format!("{who} 没等到回音，改请 {} 为“{key}”提案（第 {attempt} 次）", name(*to))
        }
        RegisterEvent::Reading { key, owners, needed, .. } => {
            format!("{who} 询问“{key}”的 {} 个接受者各自接受了什么；须有 {needed} 个一致", owners.len())
        }
        RegisterEvent::Prepared { key, ballot, owners, needed } => format!(
            "Prepare：{who} 请“{key}”的 {} 个接受者不再接受低于 {} 的选票；须有 {needed} 个承诺",
            owners.len(),
            ballot.counter
        ),
        RegisterEvent::Proposed { key, ballot, version, at_once: true, needed, .. } => format!(
            "Accept：{who} 直接提出“{key}”的第 {version} 版（选票 {} 已随上一个值获得承诺）；须有 {needed} 个接受",
            ballot.counter
        ),
        RegisterEvent::Proposed { key, ballot, version, needed, .. } => {
            format!("Accept：{who} 以选票 {} 提出“{key}”的第 {version} 版；须有 {needed} 个接受", ballot.counter)
        }
        RegisterEvent::Counted { phase, from, have, needed, .. } => {
            let what = match phase {
                RegisterPhase::Reading => "已报告",
                RegisterPhase::Preparing => "已承诺",
                RegisterPhase::Accepting => "已接受",
            };
            format!("{who} 计票 {have}/{needed}：{} {what}", name(*from))
        }
        RegisterEvent::Chosen { key, version, .. } => format!("{who} 达到多数：“{key}”的第 {version} 版被选定"),
        RegisterEvent::Agreed { key, version } => {
            format!("多数一致认定“{key}”为第 {version} 版：{who} 一个来回就读到了")
        }
        RegisterEvent::Outbid { ballot, from, promised, .. } => format!(
            "{} 拒绝了 {who} 的选票 {}：它已向 {} 承诺选票 {}",
            name(*from),
            ballot.counter,
            name(promised.node),
            promised.counter
        ),
        RegisterEvent::Finished { refusal: None, .. } => format!("{who} 答复客户端：完成"),
        RegisterEvent::Finished { refusal: Some(why), .. } => {
            format!("{who} 答复客户端：{}", refusal(Language::Chinese, why))
        }
        RegisterEvent::Moved { partition, keys } => {
            format!("{who} 确认分区 {partition} 的 {keys} 个寄存器都已到达将来的所有者")
        }
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
            MembershipEvent::Vanished { target, witnesses } => {
                format!("{who} 认定 {} 已消失：{} 发现它的地址已无人监听", name(*target), list(witnesses, name, "、"))
            }
            MembershipEvent::Forgot(node) => format!("{who} 忘掉了 {}", name(*node)),
        },
        EventKind::Topology(event) => match event {
            TopologyEvent::Bootstrapped(config) => format!(
                "{who} 创立纪元 {}：{} 个所有者，每键 {} 份",
                config.epoch.0,
                config.current.owners().count(),
                config.replicas
            ),
            TopologyEvent::Adopted(config) if config.next.is_some() => {
                format!("{who} 采纳纪元 {}：变更进行中，新旧两组都须同意", config.epoch.0)
            }
            TopologyEvent::Adopted(config) => format!("{who} 采纳纪元 {}：已定", config.epoch.0),
            TopologyEvent::RefusedCluster { from, .. } => {
                format!("{who} 拒绝了 {} 的配置：属于另一个集群", name(*from))
            }
            TopologyEvent::Prepared { epoch, ballot, voters, needed } => format!(
                "{who} 以选票 {} 询问 {} 个投票者：纪元 {} 之后是什么；须有 {needed} 个承诺",
                ballot.counter,
                voters.len(),
                epoch.0
            ),
            TopologyEvent::Proposed { config, inherited: true, needed, .. } => {
                format!("{who} 必须提出别人先前提出的纪元 {}；须有 {needed} 个接受", config.epoch.0)
            }
            TopologyEvent::Proposed { config, needed, .. } => {
                format!("{who} 提出纪元 {}；须有 {needed} 个接受", config.epoch.0)
            }
            TopologyEvent::Counted { from, have, needed, .. } => {
                format!("{who} 计票 {have}/{needed}：{}", name(*from))
            }
            TopologyEvent::Outbid { ballot, from, promised } => format!(
                "{} 拒绝了 {who} 的选票 {}：它已承诺 {} 的选票 {}",
                name(*from),
                ballot.counter,
                name(promised.node),
                promised.counter
            ),
            TopologyEvent::Chosen { epoch, .. } => format!("{who} 达到法定数：纪元 {} 被选定", epoch.0),
            TopologyEvent::Learning { newcomers } => {
                format!("{who} 让新成员在变更前学习：{}", progress(newcomers, name, "，"))
            }
            TopologyEvent::Recovered(config) => {
                format!("{who} 以 {} 个幸存者的数据建立新集群，纪元 {}", config.current.storage.len(), config.epoch.0)
            }
            TopologyEvent::Left { .. } => format!("{who} 离开了原集群，将与其他幸存者建立新集群"),
            TopologyEvent::Stalled { member } => format!("{who} 不开始变更：{} 没有进展", name(*member)),
            TopologyEvent::Unseated { .. } => format!("{who} 丢失了其席位所属的存储，不再参与"),
            TopologyEvent::Autopilot { reason, steps } => {
                let steps: Vec<String> = steps.iter().map(|wish| step(Language::Chinese, wish, name)).collect();
                format!("{who} 的自动驾驶：{}；请求{}", why(Language::Chinese, *reason, name), steps.join("、"))
            }
        },
        EventKind::Registers(event) => registers_chinese(who, event, name),
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
                partition, round.0
            ),
            KvEvent::Fetched { partition, from, bytes } => {
                format!("{who} 从 {} 取得分区 {} 的 {bytes} 字节", name(*from), partition)
            }
            KvEvent::Learnt { partition, have, of } => {
                format!("{who} 学到分区 {partition}，{of} 个中的第 {have} 个")
            }
            KvEvent::TookOver { partition, have, of } => {
                format!("{who} 接管了分区 {partition}：{have}/{of}")
            }
            KvEvent::Repaired { key, from } => format!("{who} 的“{key}”落后了，由 {} 补齐", name(*from)),
        },
    }
}
