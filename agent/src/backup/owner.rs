//! Whether this machine may back up the target, and under which generation.
//!
//! Asked before the work begins, so that an instance that was replaced does not burden the engine and the repository for nothing.
//! What decides is asked again when the pointer is moved.

use perennial_shared::id::Generation;
use perennial_shared::pointer::{Pointer, PointerState};
use perennial_shared::repository::{PointerError, Repository};
use perennial_shared::resolve::{Resolution, resolve};

use super::Wish;
use crate::failure::{Exit, Failure};

/// The generation that the backup is written under, by the pointer as it is now.
pub(super) async fn generation(
    repository: &Repository,
    pointer: &PointerState,
    wish: &Wish,
) -> Result<Generation, Failure> {
    match pointer {
        PointerState::Present { pointer, .. } => of_pointer(pointer, wish),
        PointerState::Damaged { why, newer: true, .. } => Err(PointerError::Newer(why.clone()).into()),
        PointerState::Damaged { .. } => of_manifests(&resolve(repository).await?, wish),
        PointerState::Absent | PointerState::Bare { .. } => {
            Ok(resolve(repository).await?.generation().max(Generation(1)))
        }
    }
}

fn of_pointer(pointer: &Pointer, wish: &Wish) -> Result<Generation, Failure> {
    let mine = pointer.owner.is_none() || pointer.owner == wish.instance;
    let later = wish.generation.is_some_and(|asked| pointer.generation > asked);
    if mine && !later {
        return Ok(pointer.generation);
    }
    Err(not_owner(wish, pointer.owner.as_deref(), pointer.generation).into())
}

/// With the pointer damaged, the newest manifest tells whose target it is.
fn of_manifests(resolution: &Resolution, wish: &Wish) -> Result<Generation, Failure> {
    let generation = resolution.generation().max(Generation(1));
    let newest = resolution.candidates.iter().find_map(|c| c.manifest.as_ref());
    let owner = newest.and_then(|m| m.owner.as_deref());
    if owner.is_some() && owner != wish.instance.as_deref() {
        return Err(not_owner(wish, owner, generation).into());
    }
    if newest.is_none() {
        let message = "the pointer is damaged and no backup tells whose target this is; look at the pointer, then delete or repair it";
        return Err(Failure::new(Exit::Refused, "PointerDamaged", message));
    }
    Ok(generation)
}

fn not_owner(wish: &Wish, owner: Option<&str>, generation: Generation) -> PointerError {
    PointerError::NotOwner {
        me: wish.instance.clone().unwrap_or_else(|| "not an EC2 instance".into()),
        owner: owner.unwrap_or("nobody").into(),
        generation: generation.0,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use perennial_shared::manifest::Reason;

    use super::*;

    fn wish(instance: Option<&str>, generation: Option<u32>) -> Wish {
        Wish {
            reason: Reason::Manual,
            instance: instance.map(Into::into),
            generation: generation.map(Generation),
            kind: super::super::chain::Kind::Auto,
            reread: false,
        }
    }

    #[test]
    fn only_the_owner_under_its_own_generation() {
        let at = Timestamp::UNIX_EPOCH;
        let owned = Pointer::first("docs", "weaviate", Some("i-1"), at).owned_by("i-1", Generation(3), at);
        let nobodys = Pointer::first("docs", "weaviate", None, at);
        for (pointer, instance, asked, allowed) in [
            (&owned, Some("i-1"), None, true),
            (&owned, Some("i-1"), Some(3), true),
            (&owned, Some("i-1"), Some(2), false),
            (&owned, Some("i-2"), Some(3), false),
            (&owned, None, None, false),
            (&nobodys, None, None, true),
            (&nobodys, Some("i-1"), Some(1), true),
        ] {
            let got = of_pointer(pointer, &wish(instance, asked));
            assert_eq!(got.is_ok(), allowed, "{instance:?} {asked:?}");
            if let Err(e) = got {
                assert_eq!((e.code, e.exit), ("NotOwner", Exit::Refused));
            }
        }
    }
}
