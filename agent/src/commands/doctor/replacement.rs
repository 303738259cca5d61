//! What becomes of writes when the group replaces the instance on purpose.

use perennial_shared::settings::Target;

use crate::check::Check;

const NAME: &str = "planned replacement";

/// Nothing where no group replaces the instance.
pub(super) fn check(target: &Target) -> Option<Check> {
    target.auto_scaling.as_ref()?;
    let (engine, method) = (target.engine.word(), target.method.word());
    Some(match &target.endpoint {
        _ if target.method.keeps_reads() => {
            Check::good(NAME, "the engine refuses writes before the final backup, and answers reads")
        }
        _ if target.backup.keep_reads => Check::warning(
            NAME,
            "the final backup sets Weaviate's shards READONLY and leaves clients their reads (`backup.keep_reads`): of a batch that is written \
             meanwhile the first object is refused, and the others are acknowledged and lost. Stop writers before you replace the instance",
        ),
        Some(_) => Check::good(NAME, "clients are cut off before the final backup: their address is taken away"),
        None => Check::warning(
            NAME,
            format!(
                "nothing refuses writes before a final backup: {engine} by method {method} cannot, and there is no `endpoint` to take \
                 away; what is written while it is made is lost. Set an `endpoint`, or stop writers before you replace the instance"
            ),
        ),
    })
}

#[cfg(test)]
mod tests {
    use perennial_shared::settings::parse;

    use super::*;
    use crate::check::Found;

    #[test]
    fn where_nothing_refuses_writes_it_is_said() {
        let found = |engine: &str, more: &str| {
            let text = format!("{{name: docs, engine: {engine}, repository: 's3://bucket/docs'{more}}}");
            check(&parse("docs.yaml", &text).expect("settings")).map(|c| c.found)
        };
        let (group, endpoint) =
            (", auto_scaling: {group: docs}", ", endpoint: {kind: elastic_ip, allocation_id: eipalloc-1}");
        assert_eq!(found("qdrant", ""), None);
        assert_eq!(found("qdrant", group), Some(Found::Warning));
        assert_eq!(found("weaviate", group), Some(Found::Warning));
        assert_eq!(found("qdrant", &format!("{group}{endpoint}")), Some(Found::Good));
        assert_eq!(found("redis", group), Some(Found::Good));
        let keeps = ", method: physical, backup: {keep_reads: true}";
        assert_eq!(found("weaviate", &format!("{group}{endpoint}{keeps}")), Some(Found::Warning));
    }
}
