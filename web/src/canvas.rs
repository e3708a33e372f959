//! Messages in flight, drawn at the screen's pace on a canvas above the stage.
//!
//! The cost of a canvas is the call for each shape, so all messages of a family are one path. The themes' colours are
//! the style sheet's; they are read now and then, because they may change at any time.

use std::collections::BTreeMap;

use qunlong_core::NodeId;
use qunlong_core::lift::Family;
use wasm_bindgen::JsCast;
use web_sys::{CanvasRenderingContext2d, HtmlCanvasElement};

use crate::cluster::window;
use crate::draw::{self, Placed};
use crate::model::Playback;

/// Colours and the user's wish for rest are read this often, in ms.
const SETTINGS_MS: f64 = 500.0;

/// A canvas on the page.
#[derive(Debug)]
pub struct Canvas {
    element: HtmlCanvasElement,
    read_ms: f64,
    colours: BTreeMap<&'static str, String>,
    /// Whether the user asked for less motion: messages then stand half-way instead of flying.
    rests: bool,
    /// Whether anything is drawn on it.
    drawn: bool,
}

impl Canvas {
    /// Draws on this element from now on.
    #[must_use]
    pub fn new(element: HtmlCanvasElement) -> Self {
        Self { element, read_ms: f64::NEG_INFINITY, colours: BTreeMap::new(), rests: false, drawn: false }
    }

    /// Draws what flies at time `at`. A message that does not arrive is lost half-way.
    pub fn draw(&mut self, at: f64, playback: &Playback, placed: &[Placed], arrives: impl Fn(NodeId, NodeId) -> bool) {
        let flies = playback.flights().next().is_some();
        // An empty sky is drawn once.
        if !flies && !self.drawn {
            return;
        }
        self.drawn = flies;
        self.read_settings(at);
        let Some(context) = self.prepare() else { return };
        for family in draw::FAMILIES {
            let colour = self.colours.get(draw::colour(family)).map_or("#888", String::as_str);
            context.set_fill_style_str(colour);
            context.begin_path();
            let radius = if family == Family::Membership { 3.5 } else { 6.5 };
            for (flight, progress) in playback.flights().filter(|(flight, _)| flight.kind.family() == family) {
                if progress > 0.5 && !arrives(flight.from, flight.to) {
                    continue;
                }
                let ends = (draw::place_of(placed, flight.from), draw::place_of(placed, flight.to));
                let (Some(from), Some(to)) = ends else { continue };
                let progress = if self.rests { 0.5 } else { progress };
                for (behind, share) in [(0.0, 1.0), (0.05, 0.6), (0.1, 0.35)] {
                    let point = draw::along(from, to, (progress - behind).max(0.0));
                    context.move_to(point.x + radius * share, point.y);
                    let _ = context.arc(point.x, point.y, radius * share, 0.0, std::f64::consts::TAU);
                }
            }
            context.fill();
        }
    }

    /// A clean canvas of the screen's resolution, in the stage's coordinates.
    fn prepare(&self) -> Option<CanvasRenderingContext2d> {
        let context = self.element.get_context("2d").ok()??.dyn_into::<CanvasRenderingContext2d>().ok()?;
        let scale = window().device_pixel_ratio();
        let width = (f64::from(self.element.client_width()) * scale).floor();
        let height = (f64::from(self.element.client_height()) * scale).floor();
        if f64::from(self.element.width()) != width || f64::from(self.element.height()) != height {
            self.element.set_width(width as u32);
            self.element.set_height(height as u32);
        }
        context.set_transform(1.0, 0.0, 0.0, 1.0, 0.0, 0.0).ok()?;
        context.clear_rect(0.0, 0.0, width, height);
        let fit = (width / draw::WIDTH).min(height / draw::HEIGHT);
        let (left, top) = ((width - fit * draw::WIDTH) / 2.0, (height - fit * draw::HEIGHT) / 2.0);
        context.set_transform(fit, 0.0, 0.0, fit, left, top).ok()?;
        Some(context)
    }

    fn read_settings(&mut self, at: f64) {
        if at - self.read_ms < SETTINGS_MS {
            return;
        }
        self.read_ms = at;
        let asked = window().match_media("(prefers-reduced-motion: reduce)").ok().flatten();
        self.rests = asked.is_some_and(|query| query.matches());
        let root = window().document().and_then(|document| document.document_element());
        let style = root.and_then(|root| window().get_computed_style(&root).ok().flatten());
        let Some(style) = style else { return };
        for family in draw::FAMILIES {
            let name = draw::colour(family);
            let colour = style.get_property_value(name).unwrap_or_default();
            self.colours.insert(name, colour.trim().to_owned());
        }
    }
}
