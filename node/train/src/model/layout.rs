//! Where each parameter of a decoder layer lies inside one flat vector.
//!
//! A layer's weights, and likewise a layer's adapter, are one contiguous `f32`
//! vector: the optimizer, the gradients and the checkpoint treat it as one parameter.

use std::ops::Range;

use super::config::{Config, Family};
use crate::kernel::attention::Heads;

/// A linear layer of the decoder, in the order Hugging Face lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// `self_attn.q_proj`
    Query,
    /// `self_attn.k_proj`
    Key,
    /// `self_attn.v_proj`
    Value,
    /// `self_attn.o_proj`
    Output,
    /// `mlp.gate_proj`
    Gate,
    /// `mlp.up_proj`
    Up,
    /// `mlp.down_proj`
    Down,
}

impl Module {
    /// Every linear layer, in layout order.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// The short name adapters use in `target_modules`.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::Output => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The name inside a decoder layer.
    pub fn path(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// The group of modules that read the same input.
    pub(crate) fn slot(self) -> Slot {
        match self {
            Self::Query | Self::Key | Self::Value => Slot::AttentionIn,
            Self::Output => Slot::AttentionOut,
            Self::Gate | Self::Up => Slot::MlpIn,
            Self::Down => Slot::MlpOut,
        }
    }
}

/// A group of linear layers that share their input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    AttentionIn,
    AttentionOut,
    MlpIn,
    MlpOut,
}

impl Slot {
    pub(crate) const ALL: [Self; 4] = [Self::AttentionIn, Self::AttentionOut, Self::MlpIn, Self::MlpOut];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::AttentionIn => 0,
            Self::AttentionOut => 1,
            Self::MlpIn => 2,
            Self::MlpOut => 3,
        }
    }
}

/// The sizes and offsets of one decoder layer's weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerLayout {
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) heads: Heads,
    pub(crate) eps: f32,
    pub(crate) input_norm: Range<usize>,
    pub(crate) post_norm: Range<usize>,
    /// The weight range of each slot, by [`Slot::index`].
    pub(crate) slots: [Range<usize>; 4],
    /// The bias of query, key and value, one after another.
    pub(crate) qkv_bias: Option<Range<usize>>,
    /// The norms of a query head and of a key head.
    pub(crate) head_norms: Option<[Range<usize>; 2]>,
    /// Elements in all.
    pub(crate) total: usize,
}

impl LayerLayout {
    /// Lays out the layers of a configuration.
    pub(crate) fn new(config: &Config) -> Self {
        let (hidden, inner, heads) = (config.hidden, config.inner, config.heads());
        let mut at = 0;
        let mut take = |len: usize| {
            let range = at..at + len;
            at = range.end;
            range
        };
        let input_norm = take(hidden);
        let attention_in = take(heads.row() * hidden);
        let attention_out = take(hidden * heads.query * heads.dim);
        let post_norm = take(hidden);
        let mlp_in = take(2 * inner * hidden);
        let mlp_out = take(hidden * inner);
        let (qkv_bias, head_norms) = match config.family {
            Family::Llama | Family::Patches(_) => (None, None),
            Family::Qwen2 => (Some(take(heads.row())), None),
            Family::Qwen3 => (None, Some([take(heads.dim), take(heads.dim)])),
        };
        Self {
            hidden,
            inner,
            heads,
            eps: config.rms_eps,
            input_norm,
            post_norm,
            slots: [attention_in, attention_out, mlp_in, mlp_out],
            qkv_bias,
            head_norms,
            total: at,
        }
    }

    /// The (inputs, outputs) of a slot.
    pub(crate) fn slot_shape(&self, slot: Slot) -> (usize, usize) {
        match slot {
            Slot::AttentionIn => (self.hidden, self.heads.row()),
            Slot::AttentionOut => (self.heads.query * self.heads.dim, self.hidden),
            Slot::MlpIn => (self.hidden, 2 * self.inner),
            Slot::MlpOut => (self.inner, self.hidden),
        }
    }

    /// The (outputs, inputs) of a module, as its weight tensor is shaped on disk.
    pub(crate) fn module_shape(&self, module: Module) -> (usize, usize) {
        let (inputs, _) = self.slot_shape(module.slot());
        let outputs = match module {
            Module::Query => self.heads.query * self.heads.dim,
            Module::Key | Module::Value => self.heads.key * self.heads.dim,
            Module::Output | Module::Down => self.hidden,
            Module::Gate | Module::Up => self.inner,
        };
        (outputs, inputs)
    }

    /// The first output column of a module inside its slot.
    pub(crate) fn module_column(&self, module: Module) -> usize {
        match module {
            Module::Query | Module::Output | Module::Gate | Module::Down => 0,
            Module::Key => self.heads.query * self.heads.dim,
            Module::Value => (self.heads.query + self.heads.key) * self.heads.dim,
            Module::Up => self.inner,
        }
    }

    /// Where a module's weight lies in the layer's flat vector.
    pub(crate) fn module_range(&self, module: Module) -> Range<usize> {
        let (outputs, inputs) = self.module_shape(module);
        let start = self.slots[module.slot().index()].start + self.module_column(module) * inputs;
        start..start + outputs * inputs
    }
}

/// Splits off where the query, key and value lie inside a bias of all three.
pub(crate) fn bias_ranges(heads: Heads, bias: &Range<usize>) -> [(Module, Range<usize>); 3] {
    let (query, key) = (heads.query * heads.dim, heads.key * heads.dim);
    let key_at = bias.start + query;
    [
        (Module::Query, bias.start..key_at),
        (Module::Key, key_at..key_at + key),
        (Module::Value, key_at + key..bias.end),
    ]
}

/// One adapted module inside a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdapterModule {
    pub(crate) module: Module,
    /// First output column inside the slot.
    pub(crate) column: usize,
    pub(crate) outputs: usize,
    /// Where `B` (`outputs x rank`) lies.
    pub(crate) b: Range<usize>,
}

/// The adapters of one slot: all `A` matrices (`rank x inputs` each) stacked, then each `B`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AdapterSlot {
    pub(crate) a: Range<usize>,
    pub(crate) modules: Vec<AdapterModule>,
}

/// The sizes and offsets of one decoder layer's adapter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AdapterLayout {
    pub(crate) rank: usize,
    pub(crate) scale: f32,
    pub(crate) slots: [AdapterSlot; 4],
    pub(crate) total: usize,
}

impl AdapterLayout {
    /// Lays out adapters of one rank for the given modules (order and repeats do not matter).
    pub(crate) fn new(layer: &LayerLayout, rank: usize, scale: f32, modules: &[Module]) -> Self {
        let mut at = 0;
        let mut take = |len: usize| {
            let range = at..at + len;
            at = range.end;
            range
        };
        let slots = Slot::ALL.map(|slot| {
            let wanted: Vec<Module> = Module::ALL
                .into_iter()
                .filter(|module| module.slot() == slot && modules.contains(module))
                .collect();
            let (inputs, _) = layer.slot_shape(slot);
            let a = take(wanted.len() * rank * inputs);
            let modules = wanted
                .into_iter()
                .map(|module| {
                    let (outputs, _) = layer.module_shape(module);
                    let column = layer.module_column(module);
                    AdapterModule { module, column, outputs, b: take(outputs * rank) }
                })
                .collect();
            AdapterSlot { a, modules }
        });
        Self { rank, scale, slots, total: at }
    }

    /// The slot with adapters, or `None` where it has none.
    pub(crate) fn slot(&self, slot: Slot) -> Option<&AdapterSlot> {
        let slot = &self.slots[slot.index()];
        (!slot.modules.is_empty()).then_some(slot)
    }

    /// Every adapted module with the ranges of its `A` and `B`, in layout order.
    pub(crate) fn parts(&self) -> Vec<(Module, Range<usize>, Range<usize>)> {
        let mut parts = Vec::new();
        for slot in &self.slots {
            let each = slot.a.len().checked_div(slot.modules.len()).unwrap_or(0);
            for (at, module) in slot.modules.iter().enumerate() {
                let start = slot.a.start + at * each;
                parts.push((module.module, start..start + each, module.b.clone()));
            }
        }
        parts
    }
}
