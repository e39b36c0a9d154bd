//! `top`: the ring in the terminal, redrawn every second.
//!
//! The same looks as `status`, drawn by ratatui: it knows the terminal's size and changes, redraws only
//! what is new, and gives the terminal back as it was, after a panic too. Keys are read by a thread of
//! their own, since reading them waits.
//!
//! Caveat: where the window is narrow the columns on the right are left out, where it is low the nodes at
//! the end.

use super::{
    Failure, Place,
    status::{LOAD_COLUMNS, Seen, all},
};
use crate::config::Cluster;
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Color, Style, Stylize},
    text::Line,
    widgets::{Block, Row, Sparkline, Table},
};
use std::{
    collections::VecDeque,
    io::{self, IsTerminal},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

/// How often every node is asked.
const EVERY: Duration = Duration::from_secs(1);
/// Looks that the line of throughput remembers: more than a terminal has columns.
const KEPT: usize = 512;
/// Lines of the throughput's picture, its frame included.
const PICTURE_LINES: u16 = 6;

/// What is on the screen.
#[derive(Default)]
struct Screen {
    seen: Vec<Seen>,
    /// Operations a second of all nodes, newest first.
    rates: VecDeque<u64>,
}

/// Shows the ring until q or Ctrl-C.
pub(super) async fn run(cluster: &Cluster, place: &Place) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let instead = place.command("status --watch");
        let what =
            format!("top needs a terminal to draw on and to hear keys from; as text: {instead}");
        return Err(Failure::usage(what));
    }
    let mut stop = signal(SignalKind::terminate())?;
    let mut terminal = ratatui::try_init()?;
    let end = tokio::select! {
        end = watch(cluster, place, &mut terminal) => end,
        _ = stop.recv() => Ok(()),
    };
    ratatui::restore();
    end
}

async fn watch(
    cluster: &Cluster,
    place: &Place,
    terminal: &mut DefaultTerminal,
) -> Result<(), Failure> {
    let mut events = events();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut screen = Screen::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => screen.look(all(cluster, place).await?),
            event = events.recv() => match event {
                Some(Event::Key(key)) if ends(key) => return Ok(()),
                // Another size, or anything else: drawn anew below.
                Some(_) => {}
                None => return Err(Failure::new("the terminal is gone")),
            },
        }
        terminal.draw(|frame| screen.draw(frame))?;
    }
}

/// What the terminal says. The thread ends with the process, or with the terminal.
fn events() -> mpsc::Receiver<Event> {
    let (tell, heard) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if tell.blocking_send(event).is_err() {
                return;
            }
        }
    });
    heard
}

fn ends(key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => true,
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

impl Screen {
    fn look(&mut self, seen: Vec<Seen>) {
        let rates = seen.iter().filter_map(|node| node.status.as_ref());
        let rate: f64 = rates.map(|page| page.load.operations_per_second).sum();
        self.rates.push_front(rate.round() as u64);
        self.rates.truncate(KEPT);
        self.seen = seen;
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let nodes = u16::try_from(self.seen.len() + 1).unwrap_or(u16::MAX);
        let parts = [
            Constraint::Length(1),
            Constraint::Length(nodes),
            Constraint::Length(PICTURE_LINES),
            Constraint::Fill(1),
            Constraint::Length(1),
        ];
        let [title, table, picture, _, keys] = Layout::vertical(parts).areas(frame.area());
        let answering = self.seen.iter().filter(|node| node.status.is_some()).count();
        let rate = self.rates.front().copied().unwrap_or(0);
        let words = format!(
            "SimpleDynamo: {answering} of {} nodes answer, {rate} operations a second",
            self.seen.len()
        );
        frame.render_widget(Line::from(words).bold(), title);
        frame.render_widget(self.table(), table);
        let rates: Vec<u64> = self.rates.iter().take(picture.width.into()).copied().rev().collect();
        let most = rates.iter().max().copied().unwrap_or(0);
        let block = Block::bordered().title(format!(" operations a second, at most {most} "));
        frame.render_widget(Sparkline::default().data(rates).block(block), picture);
        frame.render_widget(
            Line::from("q quits; redrawn every second; figures are those of five seconds").dim(),
            keys,
        );
    }

    fn table(&self) -> Table<'_> {
        let titles = ["NODE", "STATE"].into_iter().chain(LOAD_COLUMNS.map(|(title, _)| title));
        let header = Row::new(titles.chain(["SUSPECTED BY"])).style(Style::new().bold());
        let widths = [Constraint::Length(10), Constraint::Length(9)]
            .into_iter()
            .chain(LOAD_COLUMNS.map(|(title, _)| {
                Constraint::Length(u16::try_from(title.len().max(7)).unwrap_or(9))
            }))
            .chain([Constraint::Fill(1)]);
        Table::new(self.seen.iter().map(|node| self.row(node)), widths).header(header)
    }

    fn row(&self, node: &Seen) -> Row<'_> {
        let colour = match node.state {
            "serving" => Color::Green,
            "starting" | "learning" | "paused" => Color::Yellow,
            _ => Color::Red,
        };
        let mut cells = vec![Line::from(node.id.to_string()), Line::from(node.state).fg(colour)];
        match &node.status {
            Some(page) => cells.extend(LOAD_COLUMNS.map(|(_, words)| Line::from(words(page)))),
            None => cells.extend(LOAD_COLUMNS.map(|_| Line::from("-"))),
        }
        cells.push(Line::from(self.suspects(node.id)));
        Row::new(cells)
    }

    /// Who believes the node silent.
    fn suspects(&self, id: u32) -> String {
        let suspects = |other: &&Seen| {
            let rows = other.status.iter().flat_map(|page| &page.nodes);
            rows.into_iter().any(|row| row.id == id && row.standing == "suspected")
        };
        let by: Vec<_> =
            self.seen.iter().filter(suspects).map(|other| other.id.to_string()).collect();
        if by.is_empty() { "-".to_owned() } else { by.join(" ") }
    }
}
