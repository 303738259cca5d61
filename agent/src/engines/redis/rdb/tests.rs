use super::*;

/// A file as a server writes it, with this between the header and the end.
fn file(version: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = [version.as_bytes(), body, &[opcode::END]].concat();
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Redis, &bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

fn string(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat()
}

fn read(bytes: &[u8]) -> Result<Summary, EngineError> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    check(file.path())
}

/// Two databases with a value of each shape.
fn body() -> Vec<u8> {
    let key = |kind: u8, value: &[u8]| [&[kind], string("key").as_slice(), value].concat();
    let id = [0; 16];
    let stream = [
        &[1, 16][..],
        &id,
        &string("listpack"),
        // One entry, its id; the first one's, the largest deleted one's, how many ever.
        &[1, 7, 1, 7, 1, 0, 0, 1],
        &[1],
        &string("group"),
        &[7, 1, 1],
        &[1],
        &id,
        &[0; 8],
        &[1],
        &[1],
        &string("consumer"),
        &[0; 16],
        &[1],
        &id,
    ]
    .concat();
    let first = [
        key(0, &string("text")),
        key(0, &[0xc0, 7]),
        key(0, &[0xc3, 3, 0x40, 100, 1, 2, 3]),
        [&[opcode::EXPIRES_MS][..], &[0; 8], &[opcode::FREQUENCY, 3], &key(1, &[2, 1, b'a', 1, b'b'])].concat(),
        key(2, &[1, 1, b'm']),
        key(3, &[2, 1, b'm', 2, b'1', b'5', 1, b'n', 255]),
        key(4, &[1, 1, b'f', 1, b'v']),
        [&[opcode::IDLE, 5][..], &key(5, &[&[1, 1, b'm'][..], &[0; 8]].concat())].concat(),
        key(7, &[&[1][..], &[2, 5, 4], &[0; 8], &[5], &string("s"), &[0]].concat()),
        key(11, &string("intset")),
        key(18, &[&[1, 2][..], &string("listpack")].concat()),
        key(21, &stream),
        key(24, &[&[0; 8][..], &[1, 0, 1, b'f', 1, b'v']].concat()),
    ];
    let second = key(0, &[&[0x80, 0, 0, 0, 4][..], b"text"].concat());
    [
        &[opcode::NOTE][..],
        &string("redis-ver"),
        &string("7.0.15"),
        &[opcode::NOTE],
        &string("used-mem"),
        &[0xc2, 0, 0, 16, 0],
        &[opcode::FUNCTION],
        &string("#!lua name=x"),
        &[opcode::DATABASE, 0, opcode::SIZES, 13, 1],
        &first.concat(),
        &[opcode::DATABASE, 9, opcode::SIZES, 1, 0],
        &second,
    ]
    .concat()
}

#[test]
fn every_shape_of_value_is_stepped_over() {
    let summary = read(&file("REDIS0012", &body())).expect("good");
    assert_eq!((summary.format.as_str(), summary.version(), summary.has_checksum), ("REDIS0012", 12, true));
    assert_eq!(summary.keys, Some([(0, 13), (9, 1)].into()));
    assert_eq!((summary.notes["redis-ver"].as_str(), summary.number("used-mem")), ("7.0.15", Some(1 << 20)));
}

#[test]
fn a_file_that_is_cut_or_changed_anywhere_is_refused() {
    let good = file("REDIS0010", &body());
    for length in 0..good.len() {
        assert!(read(&good[..length]).is_err(), "cut to {length} bytes");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        // A version that is not known has no other sign than its checksum.
        assert!(read(&bad).is_err(), "byte {at} changed");
    }
    let error = read(&[good.as_slice(), b"x"].concat()).expect_err("longer").to_string();
    assert!(error.contains("after its end"), "{error}");
}

#[test]
fn keys_that_are_missing_show_even_without_a_checksum() {
    let mut body = body();
    let at = body.windows(3).position(|w| w == [opcode::SIZES, 13, 1]).expect("there");
    body[at + 1] = 14;
    let mut bytes = file("REDIS0010", &body);
    let end = bytes.len() - 8;
    bytes[end..].fill(0);
    let error = read(&bytes).expect_err("fewer keys").to_string();
    assert!(error.contains("14"), "{error}");
    body[at + 1] = 13;
    let mut bytes = file("REDIS0010", &body);
    bytes[end..].fill(0);
    assert!(!read(&bytes).expect("good").has_checksum);
}

#[test]
fn of_what_is_not_known_the_checksum_is_looked_at() {
    let unknown = [&[opcode::DATABASE, 0, 99][..], &string("key"), &[1, 2, 3]].concat();
    for version in ["REDIS0012", "REDIS0015", "VALKEY080"] {
        let bytes = file(version, &unknown);
        assert_eq!(read(&bytes).expect("good").keys, None, "{version}");
        let mut bad = bytes.clone();
        bad[12] ^= 1;
        assert!(read(&bad).is_err(), "{version}");
    }
    assert!(read(&file("OTHER0001", &unknown)).is_err());
}
