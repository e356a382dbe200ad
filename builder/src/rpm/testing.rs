//! For tests: keys, and a writer of small packages that owes nothing to the reader.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use pgp::composed::{
    ArmorOptions, DsaKeySize, KeyType, SecretKeyParamsBuilder, SignedPublicKey, SignedSecretKey,
    SubkeyParamsBuilder,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PacketTrait as _, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails as _, Password, SignatureBytes, SigningKey, Tag, Timestamp};
use rand_of_pgp::SeedableRng as _;
use rand_of_pgp::rngs::StdRng;

use super::TrustedKey;
use crate::store::hex;

/// Kinds of keys.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// As CentOS has.
    Rsa,
    /// As PGDG had.
    Dsa,
    /// Quick to make.
    Ed25519,
}

/// A key pair whose primary key signs, with a subkey that signs.
pub(super) struct Pair {
    pub(super) secret: SignedSecretKey,
}

impl Pair {
    pub(super) fn new(kind: Kind, seed: u64) -> Self {
        let subkey =
            SubkeyParamsBuilder::default().key_type(KeyType::Ed25519Legacy).can_sign(true).build().unwrap();
        let secret = SecretKeyParamsBuilder::default()
            .key_type(match kind {
                Kind::Rsa => KeyType::Rsa(2048),
                Kind::Dsa => KeyType::Dsa(DsaKeySize::B1024),
                Kind::Ed25519 => KeyType::Ed25519Legacy,
            })
            .can_sign(true)
            .can_certify(true)
            .primary_user_id("Packages <packages@example.org>".into())
            .subkeys(vec![subkey])
            .build()
            .unwrap()
            .generate(StdRng::seed_from_u64(seed))
            .unwrap();
        Pair { secret }
    }

    pub(super) fn fingerprint(&self) -> String {
        hex(self.secret.primary_key.fingerprint().as_bytes()).to_ascii_uppercase()
    }

    pub(super) fn public(&self) -> SignedPublicKey {
        self.secret.clone().into()
    }

    /// All that CentOS 7's key says of itself is signed with SHA-1.
    pub(super) fn public_with_sha1(&self) -> SignedPublicKey {
        let mut public = self.public();
        let key = &self.secret.primary_key;
        for user in &mut public.details.users {
            let config = self.config(SignatureType::CertPositive, HashAlgorithm::Sha1);
            let signature =
                config.sign_certification(key, key.public_key(), &Password::empty(), Tag::UserId, &user.id);
            user.signatures = vec![signature.unwrap()];
        }
        public
    }

    fn config(&self, kind: SignatureType, hash: HashAlgorithm) -> SignatureConfig {
        config(&self.secret.primary_key, kind, hash)
    }

    /// A signature of version 4, as rpm makes with GnuPG 2.1 and later.
    pub(super) fn v4(&self, data: &[u8], hash: HashAlgorithm) -> Vec<u8> {
        v4(&self.secret.primary_key, data, hash)
    }

    /// The same by the subkey.
    pub(super) fn v4_by_subkey(&self, data: &[u8]) -> Vec<u8> {
        v4(&self.secret.secret_subkeys[0].key, data, HashAlgorithm::Sha256)
    }

    /// A signature of version 3, as CentOS 7's packages have, made by hand (RFC 4880, 5.2.2).
    pub(super) fn v3(&self, data: &[u8]) -> Vec<u8> {
        let key = &self.secret.primary_key;
        let dated = [0, 0x5b, 0xee, 0x01, 0x02];
        let hash = HashAlgorithm::Sha256.digest(&[data, &dated].concat()).unwrap();
        let SignatureBytes::Mpis(numbers) =
            key.sign(&Password::empty(), HashAlgorithm::Sha256, &hash).unwrap()
        else {
            panic!("not the numbers of RSA or DSA");
        };
        let mut body = vec![3, 5];
        body.extend(dated);
        body.extend(key.legacy_key_id().as_ref());
        body.extend([u8::from(key.algorithm()), 8, hash[0], hash[1]]);
        for number in numbers {
            body.extend(number.to_bytes().unwrap());
        }
        let mut packet = vec![0x89];
        packet.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        packet.extend(body);
        packet
    }

    /// Writes the public key, and pins it.
    pub(super) fn trusted(&self, folder: &Path) -> TrustedKey {
        trusted(folder, &self.public(), &self.fingerprint())
    }
}

pub(super) fn trusted(folder: &Path, key: &SignedPublicKey, fingerprint: &str) -> TrustedKey {
    let file = folder.join(format!("{fingerprint}.asc"));
    fs_err::write(&file, key.to_armored_string(ArmorOptions::default()).unwrap()).unwrap();
    TrustedKey { file, fingerprint: fingerprint.to_owned(), sha1: false }
}

fn config(key: &impl SigningKey, kind: SignatureType, hash: HashAlgorithm) -> SignatureConfig {
    let mut config = SignatureConfig::v4(kind, key.algorithm(), hash);
    let time = SubpacketData::SignatureCreationTime(Timestamp::now());
    config.hashed_subpackets = vec![Subpacket::regular(time).unwrap()];
    let issuer = SubpacketData::IssuerKeyId(key.legacy_key_id());
    config.unhashed_subpackets = vec![Subpacket::regular(issuer).unwrap()];
    config
}

fn v4(key: &impl SigningKey, data: &[u8], hash: HashAlgorithm) -> Vec<u8> {
    let signature = config(key, SignatureType::Binary, hash).sign(key, &Password::empty(), data).unwrap();
    let mut packet = Vec::new();
    signature.to_writer_with_header(&mut packet).unwrap();
    packet
}

/// A path of a package that is to be written.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) path: String,
    pub(super) mode: u16,
    pub(super) content: Vec<u8>,
    pub(super) link_to: String,
    pub(super) inode: u32,
    pub(super) links: u32,
    pub(super) flags: u32,
}

/// A package that is to be written.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) items: Vec<Item>,
    pub(super) compressor: &'static str,
    /// Digest of the payload in the header, as rpm has had it since 4.14.
    pub(super) payload_digest: bool,
    pub(super) file_digests: bool,
    /// Members of the archive that the header does not list.
    pub(super) stowaways: Vec<Item>,
    /// More of the header, outside of its region.
    pub(super) dribble: bool,
}

/// Makes the signatures of a package: tags of the signature header, from header and payload.
pub(super) type Sign<'a> = &'a dyn Fn(&[u8], &[u8]) -> Vec<(u32, Vec<u8>)>;

impl Item {
    pub(super) fn file(path: &str, mode: u16, content: &[u8]) -> Self {
        Item { mode: 0o100_000 | mode, content: content.to_vec(), ..Item::folder(path, 0) }
    }

    pub(super) fn folder(path: &str, mode: u16) -> Self {
        Item {
            path: path.into(),
            mode: 0o040_000 | mode,
            content: Vec::new(),
            link_to: String::new(),
            inode: 0,
            links: 1,
            flags: 0,
        }
    }

    pub(super) fn link(path: &str, to: &str) -> Self {
        Item { mode: 0o120_777, link_to: to.into(), ..Item::folder(path, 0) }
    }

    pub(super) fn inode(self, inode: u32, links: u32) -> Self {
        Item { inode, links, ..self }
    }

    /// The last name of an inode alone brings the content.
    fn member(&self, number: usize, is_last: bool) -> Vec<u8> {
        let content = match (self.link_to.as_str(), is_last) {
            ("", true) => self.content.as_slice(),
            ("", false) => &[],
            (target, _) => target.as_bytes(),
        };
        let name = format!(".{}", self.path);
        let inode = if self.inode > 0 { self.inode } else { 1000 + u32::try_from(number).unwrap() };
        let mut bytes = cpio_header(inode, u32::from(self.mode), self.links, content.len(), &name);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

fn cpio_header(inode: u32, mode: u32, links: u32, size: usize, name: &str) -> Vec<u8> {
    let size = u32::try_from(size).unwrap();
    let length = u32::try_from(name.len() + 1).unwrap();
    let fields = [inode, mode, 0, 0, links, 0, size, 8, 1, 0, 0, length, 0];
    let mut bytes = b"070701".to_vec();
    for field in fields {
        bytes.extend(format!("{field:08x}").bytes());
    }
    bytes.extend(name.bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

impl Draft {
    pub(super) fn new(items: Vec<Item>) -> Self {
        Draft {
            items,
            compressor: "xz",
            payload_digest: false,
            file_digests: true,
            stowaways: Vec::new(),
            dribble: false,
        }
    }

    fn payload(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        for (number, item) in self.items.iter().chain(&self.stowaways).enumerate() {
            let later = self.items.iter().skip(number + 1).any(|other| other.inode == item.inode);
            if item.flags & 64 == 0 {
                archive.extend(item.member(number, item.inode == 0 || !later));
            }
        }
        archive.extend(cpio_header(0, 0, 1, 0, "TRAILER!!!"));
        match self.compressor {
            "xz" => {
                let mut writer = liblzma::write::XzEncoder::new(Vec::new(), 2);
                writer.write_all(&archive).unwrap();
                writer.finish().unwrap()
            }
            "gzip" => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(&archive).unwrap();
                writer.finish().unwrap()
            }
            "zstd" => zstd::encode_all(archive.as_slice(), 3).unwrap(),
            _ => archive,
        }
    }

    fn header(&self, payload: &[u8]) -> Vec<u8> {
        let mut values = Values::default();
        values.string(1000, "demo");
        values.string(1001, "1.0");
        values.string(1002, "3.el7");
        values.u32s(1003, &[2]);
        values.string(1022, "x86_64");
        values.string(1044, "demo-1.0-3.el7.src.rpm");
        if !self.items.is_empty() {
            let of = |read: fn(&Item) -> String| self.items.iter().map(read).collect::<Vec<_>>();
            let split = |item: &Item| item.path.rfind('/').map_or(0, |at| at + 1);
            values.u32s(
                1028,
                &self.items.iter().map(|item| u32::try_from(item.content.len()).unwrap()).collect::<Vec<_>>(),
            );
            values.u16s(1030, &self.items.iter().map(|item| item.mode).collect::<Vec<_>>());
            values.u32s(1034, &self.items.iter().map(|_| 1_500_000_000).collect::<Vec<_>>());
            let digest = |item: &Item| {
                let has = self.file_digests && item.mode & 0o170_000 == 0o100_000;
                if has { hex(&HashAlgorithm::Sha256.digest(&item.content).unwrap()) } else { String::new() }
            };
            values.strings(1035, &self.items.iter().map(digest).collect::<Vec<_>>());
            values.strings(1036, &of(|item| item.link_to.clone()));
            values.u32s(1037, &self.items.iter().map(|item| item.flags).collect::<Vec<_>>());
            values.u32s(1116, &(0..u32::try_from(self.items.len()).unwrap()).collect::<Vec<_>>());
            values.strings(
                1117,
                &self.items.iter().map(|item| item.path[split(item)..].to_owned()).collect::<Vec<_>>(),
            );
            values.strings(
                1118,
                &self.items.iter().map(|item| item.path[..split(item)].to_owned()).collect::<Vec<_>>(),
            );
        }
        values.string(1124, "cpio");
        if self.compressor != "none" {
            values.string(1125, self.compressor);
        }
        values.u32s(5011, &[8]);
        if self.payload_digest {
            values.strings(5092, &[hex(&HashAlgorithm::Sha256.digest(payload).unwrap())]);
            values.u32s(5093, &[8]);
        }
        values.encode(63, self.dribble)
    }

    /// Header and payload.
    pub(super) fn parts(&self) -> (Vec<u8>, Vec<u8>) {
        let payload = self.payload();
        (self.header(&payload), payload)
    }

    /// Writes the package; the file.
    pub(super) fn write(&self, folder: &Path, sign: Sign<'_>) -> PathBuf {
        let (header, payload) = self.parts();
        let path = folder.join("demo.rpm");
        fs_err::write(&path, assemble(&header, &payload, sign)).unwrap();
        path
    }
}

/// Lead, signature header, header, payload.
pub(super) fn assemble(header: &[u8], payload: &[u8], sign: Sign<'_>) -> Vec<u8> {
    let mut values = Values::default();
    for (tag, signature) in sign(header, payload) {
        values.push(tag, 7, signature.len(), 1, signature);
    }
    values.string(269, &hex(&HashAlgorithm::Sha1.digest(header).unwrap()));
    values.string(273, &hex(&HashAlgorithm::Sha256.digest(header).unwrap()));
    values.u32s(1000, &[u32::try_from(header.len() + payload.len()).unwrap()]);
    let mut bytes = vec![0xed, 0xab, 0xee, 0xdb, 3, 0];
    bytes.resize(96, 0);
    bytes.extend(values.encode(62, false));
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(header);
    bytes.extend(payload);
    bytes
}

/// Values of a header: tag, type, count, alignment, bytes.
#[derive(Default)]
struct Values(Vec<(u32, u32, usize, usize, Vec<u8>)>);

impl Values {
    fn push(&mut self, tag: u32, kind: u32, count: usize, align: usize, bytes: Vec<u8>) {
        self.0.push((tag, kind, count, align, bytes));
    }

    fn string(&mut self, tag: u32, text: &str) {
        self.push(tag, 6, 1, 1, [text.as_bytes(), &[0]].concat());
    }

    fn strings(&mut self, tag: u32, texts: &[String]) {
        let bytes = texts.iter().flat_map(|text| text.bytes().chain([0])).collect();
        self.push(tag, 8, texts.len(), 1, bytes);
    }

    fn u16s(&mut self, tag: u32, numbers: &[u16]) {
        self.push(tag, 3, numbers.len(), 2, numbers.iter().flat_map(|number| number.to_be_bytes()).collect());
    }

    fn u32s(&mut self, tag: u32, numbers: &[u32]) {
        self.push(tag, 4, numbers.len(), 4, numbers.iter().flat_map(|number| number.to_be_bytes()).collect());
    }

    fn encode(mut self, region: u32, dribble: bool) -> Vec<u8> {
        self.0.sort_by_key(|value| value.0);
        let mut index = Vec::new();
        let mut store = Vec::new();
        let mut line =
            |numbers: [u32; 4]| index.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        let count = u32::try_from(self.0.len()).unwrap() + 1;
        let mut lines = Vec::new();
        for (tag, kind, count, align, bytes) in self.0 {
            store.resize(store.len().next_multiple_of(align), 0);
            lines.push([tag, kind, u32::try_from(store.len()).unwrap(), u32::try_from(count).unwrap()]);
            store.extend(bytes);
        }
        line([region, 7, u32::try_from(store.len()).unwrap(), 16]);
        lines.into_iter().for_each(&mut line);
        let covered = if dribble { count - 1 } else { count };
        for number in [region, 7, (covered * 16).wrapping_neg(), 16] {
            store.extend(number.to_be_bytes());
        }
        let mut bytes = vec![0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0];
        bytes.extend(count.to_be_bytes());
        bytes.extend(u32::try_from(store.len()).unwrap().to_be_bytes());
        bytes.extend(index);
        bytes.extend(store);
        bytes
    }
}
