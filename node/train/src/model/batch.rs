//! What goes through a model at once, and what is predicted in it.

use std::sync::Arc;

use crate::kernel::Segments;
use crate::kernel::head::Target;

/// Sequences laid end to end, and the positions whose next token is predicted.
#[derive(Debug, Clone)]
pub struct Batch {
    pub(super) ids: Arc<[u32]>,
    pub(super) segments: Arc<Segments>,
    pub(super) targets: Arc<[Target]>,
    pub(super) weigh: Option<Weigh>,
    pub(super) first_row: u64,
    /// What image models are given instead of tokens.
    pub(super) patches: Option<Arc<Patches>>,
}

/// Noisy images cut into patches, and what is to be said of each patch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patches {
    /// The features of every patch, in order.
    pub features: Vec<f32>,
    /// The values to predict of every patch, in order.
    pub goals: Vec<f32>,
    /// The weight of each image's mean squared error.
    pub weights: Vec<f32>,
}

type WeighFn = dyn Fn(&[f64]) -> Vec<f32> + Send + Sync;

/// Turns the losses of a batch's targets into their weights; see [`Batch::weighed_by`].
#[derive(Clone)]
pub struct Weigh(Arc<WeighFn>);

impl Weigh {
    /// Wraps a function; it must return as many weights as it is given losses.
    pub fn new(weigh: impl Fn(&[f64]) -> Vec<f32> + Send + Sync + 'static) -> Self {
        Self(Arc::new(weigh))
    }

    pub(crate) fn weights(&self, losses: &[f64]) -> Vec<f32> {
        (self.0)(losses)
    }
}

impl std::fmt::Debug for Weigh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Weigh")
    }
}

impl Batch {
    /// Joins sequences and their targets; target rows count from the first sequence's start.
    ///
    /// `first_row` is the position of the first token inside the whole step's tokens;
    /// dropout is keyed by it.
    pub fn new(sequences: &[&[u32]], targets: Vec<Target>, first_row: u64) -> Self {
        let segments = Segments::new(sequences.iter().map(|sequence| sequence.len()));
        Self {
            ids: sequences.concat().into(),
            segments: Arc::new(segments),
            targets: targets.into(),
            weigh: None,
            first_row,
            patches: None,
        }
    }

    /// Joins images of `per_image` patches each; `first_row` is as in [`Self::new`].
    pub fn patches(patches: Patches, per_image: usize, first_row: u64) -> Self {
        let segments = Segments::new(patches.weights.iter().map(|_| per_image));
        Self {
            ids: Arc::from([]),
            segments: Arc::new(segments),
            targets: Arc::from([]),
            weigh: None,
            first_row,
            patches: Some(Arc::new(patches)),
        }
    }

    /// This batch with an idle sequence (or blank images) at its end, so that it has at least
    /// `rows` tokens.
    pub(crate) fn padded(self, rows: usize) -> Self {
        let idle = rows.saturating_sub(self.tokens());
        if idle == 0 {
            return self;
        }
        let ranges = self.segments.ranges().map(|range| range.len());
        if let Some(patches) = &self.patches {
            let (size, tokens) = (self.segments.longest().max(1), self.tokens().max(1));
            let blank = idle.div_ceil(size);
            let segments = Segments::new(ranges.chain(std::iter::repeat_n(size, blank)));
            let mut patches = Patches::clone(patches);
            let width = patches.features.len() / tokens;
            patches.features.resize(patches.features.len() + blank * size * width, 0.0);
            return Self { patches: Some(Arc::new(patches)), segments: Arc::new(segments), ..self };
        }
        let segments = Arc::new(Segments::new(ranges.chain([idle])));
        let ids = self.ids.iter().copied().chain(std::iter::repeat_n(0, idle)).collect();
        Self { ids, segments, ..self }
    }

    /// Makes the weights a function of the losses: `weigh` is given the unweighted loss of
    /// every target and returns the weight of every target.
    ///
    /// For objectives such as DPO, whose weight of a token depends on the log-probabilities
    /// of its pair; both rows of the pair must be in this batch.
    pub fn weighed_by(self, weigh: Weigh) -> Self {
        Self { weigh: Some(weigh), ..self }
    }

    /// Tokens, or patches, in the batch.
    pub fn tokens(&self) -> usize {
        self.segments.total()
    }

    /// The positions predicted, in order.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }
}
