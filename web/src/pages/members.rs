//! Members: what gossip knows, as a table, and how it comes to be known.

use qunlong_core::member::{Class, State};
use yew::prelude::*;

use super::rumour::RumourPanel;
use crate::app::{Action, Page, Screen, Selected};
use crate::components::{badges, figures, state_mark};
use crate::i18n;

/// The screen.
#[function_component]
pub fn MembersPage(screen: &Screen) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let world = screen.cluster.read();
    let mut members = world.status.members.clone();
    members.sort_by(|a, b| (a.profile.class, &a.profile.name, a.id).cmp(&(b.profile.class, &b.profile.name, b.id)));
    let rows = members.iter().map(|member| {
        let id = member.id;
        let select = {
            let act = screen.act.clone();
            move |_: MouseEvent| {
                act.emit(Action::Select(Some(Selected::Node(id))));
                act.emit(Action::Page(Page::Stage));
            }
        };
        let way = match &member.profile.address {
            Some(address) => html! { <code>{ address }</code> },
            None => badges(&world, &member.profile.relays),
        };
        let zone = world.zone(&member.profile.zone());
        let is_me = world.me() == Some(id);
        html! {
            <tr key={id.to_string()} class={classes!(is_me.then_some("me"), (!member.is_reachable()).then_some("gone"))}>
                <td>
                    <button class="link" onclick={select}>{ &member.profile.name }</button>
                    if is_me { <em>{ format!(" · {}", texts.you) }</em> }
                </td>
                <td>
                    { state_mark(language, member.state) }
                    if member.profile.drowsy { <em title={texts.drowsy_means}>{ format!(" · {}", texts.drowsy) }</em> }
                </td>
                <td>
                    { i18n::class(language, member.profile.class) }
                    if member.profile.mobile { <em>{ format!(" · {}", texts.mobile) }</em> }
                </td>
                <td>{ i18n::load(language, member.profile.load) }</td>
                <td>{ i18n::durability(language, member.profile.durability) }</td>
                <td class="number">{ member.generation.0 }</td>
                <td class="number">{ member.incarnation }</td>
                <td>{ if world.is_owner(id) { "✓" } else { "" } }</td>
                <td>{ zone }</td>
                <td>{ way }</td>
                <td>{ &member.profile.version }</td>
                <td><code title={qunlong_core::id::hex(id)}>{ id.to_string() }</code></td>
            </tr>
        }
    });
    let count = |class: Class| {
        members.iter().filter(|member| member.profile.class == class && member.state == State::Alive).count()
    };
    let numbers = [
        (i18n::class(language, Class::Server), count(Class::Server).to_string()),
        (i18n::class(language, Class::Tab), count(Class::Tab).to_string()),
        (texts.spare, world.spare.map_or_else(|| "–".to_owned(), |spare| spare.to_string())),
    ];
    html! {
        <div class="stacked"><section class="card">
            <div class="title"><div><h1>{ texts.members_title }</h1><p class="lead">{ texts.members_lead }</p></div>{ figures(numbers) }</div>
            <div class="scroll">
                <table class="data">
                    <thead><tr>
                        <th>{ texts.name }</th><th>{ texts.state }</th><th>{ texts.class }</th><th>{ texts.load }</th><th>{ texts.durability }</th>
                        <th>{ texts.boot }</th><th>{ texts.incarnation }</th><th>{ texts.owns }</th><th>{ texts.zone }</th><th>{ texts.address }</th><th>{ texts.version }</th><th>{ texts.id }</th>
                    </tr></thead>
                    <tbody>{ for rows }</tbody>
                </table>
            </div>
            if members.is_empty() { <p class="empty">{ texts.stage_empty }</p> }
        </section>
        <RumourPanel ..screen.clone() /></div>
    }
}
