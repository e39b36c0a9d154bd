//! What a router counts, for people.

use super::Router;
use actix::{Context, Handler, Message, MessageResult};

/// Membership → router: the figures.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Figures")]
pub struct AskFigures;

/// What a router has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Operations in flight.
    pub in_flight: u64,
    /// Coordinators alive.
    pub coordinators: u64,
    /// Operations ended.
    pub operations: u64,
    /// Of these, certainly not applied.
    pub refused: u64,
    /// Of these, with an unknown outcome.
    pub unknown: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Operations for which one more node was asked before the time-out.
    pub hedges: u64,
}

impl Figures {
    /// Those of two routers together.
    #[must_use]
    pub fn and(self, other: Figures) -> Figures {
        Figures {
            in_flight: self.in_flight + other.in_flight,
            coordinators: self.coordinators + other.coordinators,
            operations: self.operations + other.operations,
            refused: self.refused + other.refused,
            unknown: self.unknown + other.unknown,
            retries: self.retries + other.retries,
            hedges: self.hedges + other.hedges,
        }
    }
}

impl Handler<AskFigures> for Router {
    type Result = MessageResult<AskFigures>;

    fn handle(&mut self, _: AskFigures, _: &mut Context<Self>) -> Self::Result {
        MessageResult(Figures {
            in_flight: self.routing.in_flight() as u64,
            hedges: self.routing.hedges(),
            coordinators: self.coordinators.len() as u64,
            ..self.figures
        })
    }
}
