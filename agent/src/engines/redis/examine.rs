use super::Redis;
use crate::check::Check;
pub(super) async fn checks(_redis: &Redis) -> Vec<Check> {
    vec![]
}
