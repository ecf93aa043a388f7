//! Drives the roles: shows them the state, carries out what they want done.

use tiltyard_ledger::StateRead;

use crate::config::MachineError;
use crate::machine::Machine;
use crate::outbox::Purpose;
use crate::roles::{RoleAction, RoleInput, View};

impl<S: StateRead> Machine<S> {
    /// Lets the roles look at the state, when it is the newest there is.
    pub(crate) fn wake_roles(&mut self) -> Result<(), MachineError> {
        if self.is_syncing() {
            return Ok(());
        }
        let mut actions = Vec::new();
        let view = View {
            height: self.chain.tip.height,
            genesis: self.chain.verifier.genesis(),
            state: &self.state,
        };
        if self.roles_started {
            self.roles.on_block(&view, &mut actions)?;
        } else {
            self.roles_started = true;
            self.roles.on_start(&view, &mut actions)?;
        }
        self.act(actions)
    }

    /// Hands the roles what the shell reports.
    pub(crate) fn tell_roles(&mut self, input: RoleInput) -> Result<(), MachineError> {
        let mut actions = Vec::new();
        let view = View {
            height: self.chain.tip.height,
            genesis: self.chain.verifier.genesis(),
            state: &self.state,
        };
        self.roles.on_input(&view, input, &mut actions)?;
        self.act(actions)
    }

    fn act(&mut self, actions: Vec<RoleAction>) -> Result<(), MachineError> {
        for action in actions {
            match action {
                RoleAction::Effect(effect) => self.out.push(effect),
                RoleAction::Submit { from, key, action } => {
                    self.submit_own(Purpose::Duty(key), from, *action)?;
                }
            }
        }
        Ok(())
    }
}
