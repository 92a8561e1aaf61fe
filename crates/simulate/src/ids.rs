use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use uuid::Builder;

/// Row ids from a seed of their own, so two hospitals may hold different people under the same ids: the
/// hardest case for whoever must keep tenants apart.
pub(crate) struct Ids(ChaCha8Rng);

impl Ids {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed ^ 0x1d5_1d5))
    }

    pub fn next(&mut self) -> String {
        Builder::from_random_bytes(self.0.random()).into_uuid().to_string()
    }
}
