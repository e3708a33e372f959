//! The board: the 256 partitions as squares, each in the colour of its first owner.

use std::collections::BTreeMap;
use std::rc::Rc;

use qunlong_core::NodeId;
use yew::prelude::*;

use crate::app::{Action, Screen, Selected};
use crate::components::badges;
use crate::i18n::{self, Language};
use crate::ownership::{Colours, Ownership, SIDE, Square};

/// A square's side with the gap to the next.
const STEP: usize = 20;

/// Who owns what, as a picture or as a table.
#[function_component]
pub fn Board(screen: &Screen) -> Html {
    let (texts, language) = (screen.texts(), screen.view.language);
    let world = screen.cluster.read();
    let Some(ownership) = world.ownership.clone() else { return Html::default() };
    let has_seat = |node: &NodeId| ownership.config.seats(*node);
    let selected = match screen.view.selected {
        Some(Selected::Node(node)) => Some(node).filter(has_seat),
        _ => None,
    };
    let toggle = screen.act.reform(|_: MouseEvent| Action::Table);
    let switch = if screen.view.table { texts.stage_picture } else { texts.stage_table };
    let legend = world.by_name(ownership.config.storage()).into_iter().map(|node| {
        let pressed = selected == Some(node);
        let select = screen.act.reform(move |_: MouseEvent| Action::Select((!pressed).then_some(Selected::Node(node))));
        let share = i18n::share(language, ownership.share(node));
        html! {
            <button key={node.to_string()} class={classes!("owner-item", colour(&world.colours, node))} onclick={select} aria-pressed={pressed.to_string()}>
                <i aria-hidden="true" /><b>{ world.name(node) }</b><span>{ share }</span>
            </button>
        }
    });
    let row = |square: &Square| {
        let marks = selected.is_some_and(|node| square.owners.contains(&node));
        html! {
            <tr key={square.partition.to_string()} class={classes!(marks.then_some("me"))}>
                <td class="number">{ square.partition.to_string() }</td>
                <td>{ badges(&world, &square.owners) }</td>
                <td>if let Some(next) = &square.next { { badges(&world, next) } }</td>
            </tr>
        }
    };
    html! {
        <section class="card board">
            <div class="row"><h2>{ texts.who_owns }</h2><button class="quiet" onclick={toggle}>{ switch }</button></div>
            <p class="note">{ texts.who_owns_lead }{ " " }if ownership.moved() > 0 { { texts.who_owns_moves } }</p>
            <div class="owner-items" role="group" aria-label={texts.owners}>{ for legend }</div>
            if screen.view.table {
                <div class="scroll tall" tabindex="0"><table class="data">
                    <thead><tr><th class="number">{ texts.partition }</th><th>{ texts.owners }</th><th>{ texts.owners_next }</th></tr></thead>
                    <tbody>{ for ownership.squares.iter().map(row) }</tbody>
                </table></div>
            } else {
                <Squares ownership={Rc::clone(&ownership)} names={world.seat_names()} colours={world.colours.clone()} {selected} {language} />
            }
        </section>
    }
}

fn colour(colours: &Colours, node: NodeId) -> Option<String> {
    colours.of(node).map(|colour| format!("owner-{colour}"))
}

/// What the squares are drawn from: they are many, and drawn anew only when one of these has changed.
#[derive(Properties, PartialEq)]
struct SquaresProps {
    ownership: Rc<Ownership>,
    names: BTreeMap<NodeId, String>,
    colours: Colours,
    selected: Option<NodeId>,
    language: Language,
}

#[function_component]
fn Squares(props: &SquaresProps) -> Html {
    let texts = props.language.texts();
    let named = |nodes: &[NodeId]| {
        let names = nodes.iter().filter_map(|node| props.names.get(node)).map(String::as_str);
        names.collect::<Vec<_>>().join(", ")
    };
    let square = |square: &Square| {
        let at = usize::from(square.partition.slot());
        let (x, y) = (at % SIDE * STEP + 1, at / SIDE * STEP + 1);
        let first = square.owners.first().copied();
        let owned = props.selected.is_none_or(|node| square.owners.contains(&node));
        let second = props.selected.filter(|_| owned && props.selected != first);
        let mut told = format!("{} {}: {}", texts.partition, square.partition, named(&square.owners));
        if let Some(next) = &square.next {
            told.push_str(&format!(" → {}", named(next)));
        }
        let side = (STEP - 2).to_string();
        html! {
            <g class={classes!("square", first.and_then(|node| colour(&props.colours, node)), (!owned).then_some("other"))}>
                <title>{ told }</title>
                <rect x={x.to_string()} y={y.to_string()} width={side.clone()} height={side.clone()} rx="3" />
                if square.next.is_some() {
                    <rect class="moves" fill="url(#moves)" x={x.to_string()} y={y.to_string()} width={side.clone()} height={side} rx="3" />
                }
                if let Some(node) = second {
                    <circle class={classes!("second", colour(&props.colours, node))} cx={(x + STEP / 2 - 1).to_string()} cy={(y + STEP / 2 - 1).to_string()} r="4.5" />
                }
            </g>
        }
    };
    let whole = SIDE * STEP;
    html! {
        <svg class="squares" viewBox={format!("0 0 {whole} {whole}")} role="img" aria-label={texts.who_owns}>
            <defs>
                <pattern id="moves" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
                    <rect class="hatch" width="2.4" height="6" />
                </pattern>
            </defs>
            // Keys with more copies have the same owners, and more of them.
            { for props.ownership.squares.iter().filter(|square| square.partition.class() == 0).map(square) }
        </svg>
    }
}
