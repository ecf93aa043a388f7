//! Integration tests of the wire: golden bytes, hostile bytes, proofs, receipts and light verification.

mod certificates;
mod chain;
mod codec_gate;
mod evidence;
mod genesis_rules;
mod golden;
mod light_client;
mod merkle_paths;
mod receipts;
mod rows;
mod sample;
mod sealing;
mod set_draw;
mod snapshots;
mod spec_page;
mod state_proofs;
mod threats;
mod transactions;
