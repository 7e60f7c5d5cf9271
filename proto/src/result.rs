//! Results of steps as messages and back.

use buildyard_model::{Chain, ParseDigestError};

use crate::v1;

/// Chains as their message.
pub fn encode_result(chains: &[Chain]) -> v1::StepResult {
    let chain = |chain: &Chain| v1::Chain {
        layers: chain.layers().iter().map(ToString::to_string).collect(),
    };
    v1::StepResult {
        outputs: chains.iter().map(chain).collect(),
    }
}

/// Chains from their message.
///
/// # Errors
/// A layer id that is not a digest.
pub fn decode_result(result: &v1::StepResult) -> Result<Vec<Chain>, ParseDigestError> {
    let chain = |chain: &v1::Chain| {
        let layers = chain.layers.iter().map(|layer| layer.parse());
        layers.collect::<Result<_, _>>().map(Chain::new)
    };
    result.outputs.iter().map(chain).collect()
}

#[cfg(test)]
mod tests {
    use buildyard_model::{Digest, LayerId};

    use super::*;

    #[test]
    fn results_survive_the_way() {
        let chains = vec![Chain::scratch(), Chain::new(vec![LayerId(Digest::of("a"))])];
        assert_eq!(decode_result(&encode_result(&chains)), Ok(chains));
    }

    #[test]
    fn malformed_layers_are_refused() {
        let chain = v1::Chain {
            layers: vec!["x".to_owned()],
        };
        let result = v1::StepResult {
            outputs: vec![chain],
        };
        assert!(decode_result(&result).is_err());
    }
}
