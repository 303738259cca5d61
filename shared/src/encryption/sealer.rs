//! Seals bytes for a place under one key: what data keys and wrapping keys have in common.
//!
//! **What is stored.** AES-256-GCM by aws-lc: nonce (12 bytes), ciphertext, tag (16 bytes). The data key is the AES key as
//! it is, so whoever has unwrapped it needs no more than AES-GCM and the place of a frame to read a backup without
//! Perennial.
//!
//! **The place** (which archive, which offset, which page) is authenticated and not stored: a frame that was moved, swapped
//! or copied to another place does not open.
//!
//! **The nonce is synthetic**: the first 96 bits of BLAKE3 under a key that is derived from the data key, over the
//! place and the plain bytes. Two things follow.
//!
//! * A backup that was interrupted and is made again produces the very same bytes, so its uploaded parts are compared and
//!   not sent again.
//! * The same place with other content has another nonce. With random or counted nonces, a process that forgets what it
//!   had already used (a restored machine image, a crash) would use one twice and give the plain text away.
//!
//! It tells one thing: that two frames under one key are equal in place *and* content.
//!
//! **Bounds.** Nonces of two different frames are equal by chance only. NIST SP 800-38D (section 8.3) lets one key seal 2^32
//! frames with 96-bit nonces that are not counted, which keeps that chance below 2^-32. In frames of a mebibyte that is
//! four pebibytes of one chain; a new base takes a new key. One frame is at most 64 GiB (section 5.2.1.1), and more is
//! refused.
//!
//! **Cost**, one core of two, frames of a mebibyte: sealing 1.3 GB/s (BLAKE3 takes 40 % of it), opening 2.3 GB/s.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// Bytes of a key.
pub(crate) const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
/// By how much sealing makes a frame longer: nonce and tag.
pub const OVERHEAD: usize = NONCE_LEN + TAG_LEN;

/// What the key of the nonces is derived for; another text would make every stored frame a different one.
const NONCE_CONTEXT: &str = "perennial 2026-11 data key: synthetic nonces of frames";

/// What was to be opened is not what was sealed: other bytes, another place, or another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("encrypted bytes are damaged, moved from another place, or sealed with another key: do not use this backup")]
pub struct Tampered;

/// More than AES-GCM may encrypt at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes cannot be encrypted as one frame: AES-GCM takes less than 64 GiB")]
pub struct TooLong(pub usize);

/// A key that seals.
#[derive(Clone)]
pub(crate) struct Sealer {
    key: Zeroizing<[u8; KEY_LEN]>,
    nonces: Zeroizing<[u8; KEY_LEN]>,
}

impl Sealer {
    pub(crate) fn new(key: Zeroizing<[u8; KEY_LEN]>) -> Self {
        let nonces = Zeroizing::new(blake3::derive_key(NONCE_CONTEXT, key.as_slice()));
        Self { key, nonces }
    }

    /// The key itself, to be wrapped.
    pub(crate) fn expose(&self) -> &[u8; KEY_LEN] {
        &self.key
    }

    /// Nonce, ciphertext, tag; in place, without allocating where `plain` has [`OVERHEAD`] bytes of spare capacity.
    pub(crate) fn seal(&self, place: &[u8], mut plain: Vec<u8>) -> Result<Vec<u8>, TooLong> {
        let length = plain.len();
        let nonce = self.nonce(place, &plain);
        plain.reserve(OVERHEAD);
        plain.resize(length + NONCE_LEN, 0);
        plain.copy_within(..length, NONCE_LEN);
        plain[..NONCE_LEN].copy_from_slice(&nonce);
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(place));
        let tag = self
            .cipher()
            .and_then(|key| key.seal_in_place_separate_tag(nonce, aad, &mut plain[NONCE_LEN..]).map_err(|_| Tampered));
        plain.extend_from_slice(tag.map_err(|_| TooLong(length))?.as_ref());
        Ok(plain)
    }

    pub(crate) fn open(&self, place: &[u8], mut sealed: Vec<u8>) -> Result<Vec<u8>, Tampered> {
        let nonce = *sealed.first_chunk::<NONCE_LEN>().ok_or(Tampered)?;
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(place));
        let opened = self.cipher()?.open_within(nonce, aad, &mut sealed, NONCE_LEN..);
        let length = opened.map_err(|_| Tampered)?.len();
        sealed.truncate(length);
        Ok(sealed)
    }

    fn nonce(&self, place: &[u8], plain: &[u8]) -> [u8; NONCE_LEN] {
        let mut hash = blake3::Hasher::new_keyed(&self.nonces);
        // The length keeps a place's end and a frame's beginning apart.
        hash.update(&(place.len() as u64).to_le_bytes()).update(place).update(plain);
        let mut nonce = [0; NONCE_LEN];
        hash.finalize_xof().fill(&mut nonce);
        nonce
    }

    /// Made for each frame (a third of a microsecond), so that no expanded key outlives its use.
    fn cipher(&self) -> Result<LessSafeKey, Tampered> {
        UnboundKey::new(&AES_256_GCM, self.key.as_slice()).map(LessSafeKey::new).map_err(|_| Tampered)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> Sealer {
        Sealer::new(Zeroizing::new([byte; KEY_LEN]))
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_at_its_place(place: Vec<u8>, plain: Vec<u8>) {
            let sealed = key(1).seal(&place, plain.clone()).expect("short");
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            prop_assert_eq!(key(1).open(&place, sealed), Ok(plain));
        }

        #[test]
        fn any_flipped_bit_and_any_missing_byte_is_noticed(plain: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
            let sealed = key(1).seal(b"a", plain).expect("short");
            let mut flipped = sealed.clone();
            flipped[at.index(sealed.len())] ^= 1 << bit;
            prop_assert_eq!(key(1).open(b"a", flipped), Err(Tampered));
            let shorter = sealed[..at.index(sealed.len())].to_vec();
            prop_assert_eq!(key(1).open(b"a", shorter), Err(Tampered));
        }

        #[test]
        fn another_place_or_key_does_not_open(place: Vec<u8>, other: Vec<u8>, plain: Vec<u8>) {
            prop_assume!(place != other);
            let sealed = key(1).seal(&place, plain).expect("short");
            prop_assert_eq!(key(1).open(&other, sealed.clone()), Err(Tampered));
            prop_assert_eq!(key(2).open(&place, sealed), Err(Tampered));
        }

        #[test]
        fn sealing_again_gives_the_same_bytes_and_anything_else_another_nonce(
            place: Vec<u8>, other: Vec<u8>, plain: Vec<u8>, changed: Vec<u8>,
        ) {
            let seal = |place: &[u8], plain: &Vec<u8>| key(1).seal(place, plain.clone()).expect("short");
            let sealed = seal(&place, &plain);
            prop_assert_eq!(&seal(&place, &plain), &sealed);
            if changed != plain {
                prop_assert_ne!(&seal(&place, &changed)[..NONCE_LEN], &sealed[..NONCE_LEN]);
            }
            if other != place {
                prop_assert_ne!(&seal(&other, &plain)[..NONCE_LEN], &sealed[..NONCE_LEN]);
            }
        }
    }

    /// A place's end is not a frame's beginning.
    #[test]
    fn the_border_between_place_and_frame_counts() {
        assert_ne!(key(1).nonce(b"ab", b"c"), key(1).nonce(b"a", b"bc"));
    }

    /// Stored frames must stay readable, and a backup that is made again must find its own parts, in every later version.
    #[test]
    fn the_stored_bytes_never_change() {
        let sealed = key(7).seal(b"data-0/0", b"frame".to_vec()).expect("short");
        assert_eq!(hex::encode(sealed), "67736f171585403e03350730c640051e7f6b8220b64d7798c1e68a588e1102b5aa");
    }
}
