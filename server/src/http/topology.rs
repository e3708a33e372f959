//! Who owns and who votes: a look at the epoch in force, and changes of it.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use qunlong_core::cluster::ClusterConfig;
use qunlong_core::member::State as MemberState;
use qunlong_core::roster::Roster;
use qunlong_core::topology::{Followed, Op, Outcome, Step, spare_servers};
use qunlong_core::{NodeId, Outcome as AnyOutcome, Refusal, limits};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::json_of;
use super::error::{bad_request, error, refused};
use super::{App, snapshot};
use crate::driver::Snapshot;

/// The epoch in force, as this node knows it.
pub(super) async fn show(State(app): State<App>) -> Result<Json<Value>, Response> {
    let snapshot = snapshot(&app).await?;
    let Some(config) = &snapshot.config else { return Err(refused(&Refusal::NoEpoch)) };
    let placement = config.placement(&config.current);
    let seats = config.current.storage.iter().map(|(&node, seat)| {
        json!({
            "id": node,
            "name": name(&snapshot, node),
            "weight": seat.weight,
            "class": seat.class,
            "zone": seat.zone,
            "votes": config.current.voters.contains(&node),
            "alive": is_alive(&snapshot, node),
            "partitions": config.partitions().filter(|&p| placement.owners(p).contains(&node)).count(),
        })
    });
    Ok(Json(json!({
        "cluster": config.cluster,
        "epoch": config.epoch,
        "state": if config.next.is_some() { "joint" } else { "settled" },
        "replicas": config.replicas,
        "voters": config.current.voters.len(),
        "votes_needed": config.current.majority(),
        "servers_that_may_still_fail": spare(&snapshot, config),
        "volatile": config.current.is_tabs_alone(),
        "seats": seats.collect::<Vec<_>>(),
        "learning": snapshot.followed.as_ref().map(|followed| learning(&snapshot, followed)),
        "change": config.next.as_ref().map(|next| change(&snapshot, config, next)),
    })))
}

/// A change that was asked for here and has newcomers fetch what they are to own: how far each is, and how it ended.
fn learning(snapshot: &Snapshot, followed: &Followed) -> Value {
    let newcomers = followed.newcomers.iter().map(|(&node, progress)| {
        json!({ "id": node, "name": name(snapshot, node), "have": progress.have, "of": progress.of })
    });
    let refusal = match &followed.ended {
        Some(Err(refusal)) => Some(json!({ "code": refusal.code(), "message": refusal.to_string() })),
        _ => None,
    };
    json!({
        "epoch": followed.epoch,
        "newcomers": newcomers.collect::<Vec<_>>(),
        "ended": followed.ended.is_some(),
        "begun": followed.ended.as_ref().and_then(|ended| ended.as_ref().ok()),
        "error": refusal,
    })
}

/// The change under way: who comes, who goes, how much moves, and how much of it this node has.
fn change(snapshot: &Snapshot, config: &ClusterConfig, next: &Roster) -> Value {
    let ids = |roster: &Roster| roster.storage.keys().copied().collect::<BTreeSet<NodeId>>();
    let (old, new) = (ids(&config.current), ids(next));
    let named = |ids: Vec<&NodeId>| ids.into_iter().map(|&id| name(snapshot, id)).collect::<Vec<_>>();
    json!({
        "joins": named(new.difference(&old).collect()),
        "leaves": named(old.difference(&new).collect()),
        "voters": next.voters.iter().map(|&voter| name(snapshot, voter)).collect::<Vec<_>>(),
        "partitions_moved": config.moved().len(),
        "recovers": config.recovers,
        "partitions_here": snapshot.taken_over,
    })
}

fn spare(snapshot: &Snapshot, config: &ClusterConfig) -> usize {
    let rosters = config.rosters();
    rosters.map(|roster| spare_servers(roster, &config.copies(), |node, _| is_alive(snapshot, node))).min().unwrap_or(0)
}

fn is_alive(snapshot: &Snapshot, node: NodeId) -> bool {
    snapshot.members.iter().any(|member| member.id == node && member.state == MemberState::Alive)
}

fn name(snapshot: &Snapshot, node: NodeId) -> String {
    let member = snapshot.members.iter().find(|member| member.id == node);
    member.map_or_else(|| node.to_string(), |member| member.profile.name.clone())
}

/// One wish, as clients write it.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Wish {
    Add(NodeId),
    Remove(NodeId),
    Weigh { member: NodeId, weight: u32 },
    Abort,
}

/// What a change is asked for with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wishes {
    steps: Vec<Wish>,
    /// Weights of those who are added, 1 where it is not said.
    #[serde(default)]
    weights: BTreeMap<NodeId, u32>,
}

/// More would be no request.
const BODY_MAX: usize = 64 << 10;

/// Begins a change, or gives up the one under way.
pub(super) async fn change_it(State(app): State<App>, body: Body) -> Result<Response, Response> {
    const FORM: &str = "a change is {\"steps\":[…]} of {\"add\":ID}, {\"remove\":ID}, \
                        {\"weigh\":{\"member\":ID,\"weight\":N}} or \"abort\"; an ID is 32 hexadecimal digits";
    let steps = steps_of(&json_of(body, BODY_MAX, FORM).await?).map_err(|message| bad_request(&message))?;
    match app.node.commands.request(Op::Change { steps }.into()).await {
        Ok(AnyOutcome::Topology(Outcome::Begun { epoch })) => {
            Ok(Json(json!({ "outcome": "done", "epoch": epoch })).into_response())
        }
        Ok(AnyOutcome::Topology(Outcome::Learning { epoch, newcomers })) => {
            let answer = Json(json!({ "outcome": "learning", "epoch": epoch, "newcomers": newcomers }));
            Ok((StatusCode::ACCEPTED, answer).into_response())
        }
        Ok(_) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "an answer to another question")),
        Err(refusal) => Err(refused(&refusal)),
    }
}

/// The steps that are wished for, or why they cannot be. Whoever carries them out looks at no more than so many.
fn steps_of(wishes: &Wishes) -> Result<Vec<Step>, String> {
    if wishes.steps.len() > limits::STORAGE_MEMBERS {
        return Err(format!("a change has at most {} steps, not {}", limits::STORAGE_MEMBERS, wishes.steps.len()));
    }
    let weight = |member| wishes.weights.get(&member).copied().unwrap_or(1);
    let steps = wishes.steps.iter().map(|wish| match *wish {
        Wish::Add(member) => Step::Add { member, weight: weight(member) },
        Wish::Remove(member) => Step::Remove { member },
        Wish::Weigh { member, weight } => Step::Weight { member, weight },
        Wish::Abort => Step::GiveUp,
    });
    Ok(steps.collect())
}

/// What a recovery is asked for with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Survivors {
    survivors: Vec<NodeId>,
    /// Without it nothing is done.
    #[serde(default)]
    accept_loss: bool,
}

/// Begins a new cluster with what survivors hold.
pub(super) async fn recover(State(app): State<App>, body: Body) -> Result<Response, Response> {
    const FORM: &str = "a recovery is {\"survivors\":[ID,…],\"accept_loss\":true}; an ID is 32 hexadecimal digits";
    let wish: Survivors = json_of(body, BODY_MAX, FORM).await?;
    if !wish.accept_loss {
        let message = "what only the others hold is lost for good; say \"accept_loss\":true if that is wanted";
        return Err(error(StatusCode::BAD_REQUEST, "LOSS_NOT_ACCEPTED", message));
    }
    match app.node.commands.request(Op::Recover { survivors: wish.survivors }.into()).await {
        Ok(AnyOutcome::Topology(Outcome::Recovered { cluster, epoch })) => {
            Ok(Json(json!({ "outcome": "done", "cluster": cluster, "epoch": epoch })).into_response())
        }
        Ok(_) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "an answer to another question")),
        Err(refusal) => Err(refused(&refusal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_of_a_change_is_left_out() {
        let wishes = |count: usize| {
            let steps = (0..count).map(|_| Wish::Remove(NodeId::small(1))).collect();
            Wishes { steps, weights: BTreeMap::new() }
        };
        let all = steps_of(&wishes(limits::STORAGE_MEMBERS)).expect("just as many as there may be");
        assert_eq!(all.len(), limits::STORAGE_MEMBERS);
        let refused = steps_of(&wishes(limits::STORAGE_MEMBERS + 1)).expect_err("one too many");
        assert_eq!(refused, "a change has at most 1024 steps, not 1025");
    }
}
