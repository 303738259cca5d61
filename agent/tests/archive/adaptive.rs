//! What is compressed and what is not, where the settings leave that open.

use std::fs;

use perennial_shared::archive::frame::{Algorithm, Compression};
use perennial_shared::manifest::Archive;

use crate::case::Case;
use crate::support::{noise, run};
use crate::tree::image;

/// Bytes as vectors of floating-point numbers have them: their exponents are nearly the same.
fn vectors(size: usize) -> Vec<u8> {
    let mut bytes = noise(size, 7);
    for number in bytes.chunks_exact_mut(4) {
        number[3] = 0x3c | (number[3] & 0x83);
    }
    bytes
}

/// The data object of a backup of this content.
fn stored(content: &[u8], compression: Compression) -> Vec<u8> {
    let case = Case { compression, ..Case::plain() };
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), content).expect("written");
    let backup: Archive = run(case.back_up(folder.path(), 0, None)).expect("a base");
    let out = tempfile::tempdir().expect("a folder");
    run(case.restore(&backup, &out.path().join("x"), None)).expect("restored");
    assert!(image(&out.path().join("x")) == image(folder.path()));
    run(case.store.get(&backup.objects[1].full_key())).expect("there").body.to_vec()
}

fn holds(object: &[u8], part: &[u8]) -> bool {
    object.windows(part.len()).any(|window| window == part)
}

#[test]
fn text_is_compressed_and_vectors_are_stored_as_they_are() {
    const SIZE: usize = (4 << 20) + 100_000;
    let text = "{\"id\": 7, \"text\": \"what a person wrote\"}\n".repeat(60_000).into_bytes();
    let (noise, vectors) = (noise(SIZE, 3), vectors(SIZE));
    let adaptive = Compression::default();
    let of_text = stored(&text, adaptive);
    assert!(of_text.len() < text.len() / 20, "{} of {}", of_text.len(), text.len());
    for content in [&noise, &vectors] {
        let object = stored(content, adaptive);
        // The first frame and the last begin or end with what tar needs, which may make compressing them worth it.
        assert!(object.len() > SIZE / 100 * 97, "{SIZE} bytes became {}", object.len());
        for at in [1_500_000, 3_500_000] {
            assert!(holds(&object, &content[at..at + 100]), "what is at {at} stands there as it is");
        }
    }
    // Who names a level gets it.
    let level = Compression { algorithm: Algorithm::Zstd, level: Some(1) };
    assert!(stored(&vectors, level).len() < SIZE / 100 * 95);
    // Each frame decides for itself.
    let object = stored(&[&text[..], &vectors].concat(), adaptive);
    assert!(object.len() < (of_text.len() + SIZE) * 11 / 10, "{}", object.len());
    assert!(holds(&object, &vectors[3_500_000..3_500_100]));
}
