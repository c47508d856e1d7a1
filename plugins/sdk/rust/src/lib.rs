//! Write temper plugins in Rust: perturbations of texts that might fool a classifier. No dependencies, no `std` needed; the contract is
//! `plugins/ABI.md`, version 1.
//!
//! ```ignore
//! use temper_plugin::{plugin, Text};
//!
//! fn shout(t: &Text) -> Vec<String> {
//!     t.may.iter().map(|&i| t.replace(i, &t.word(i).to_uppercase())).collect()
//! }
//!
//! plugin!("shout", shout);
//! ```
//!
//! Build a `cdylib` with `cargo build --release --target wasm32-unknown-unknown`. A plugin is deterministic: draw chance from [`Rng`] alone.
#![no_std]
#![warn(missing_docs)]

extern crate alloc;

use alloc::{string::String, vec, vec::Vec};

/// A text to perturb.
pub struct Text<'a> {
    /// The text.
    pub text: &'a str,
    /// Byte ranges of its words.
    pub words: Vec<(usize, usize)>,
    /// Indices of the words that may change.
    pub may: Vec<usize>,
    /// The largest number of candidates wanted; more are dropped.
    pub max: usize,
    /// The true class, an index into `labels`.
    pub label: usize,
    /// Class names.
    pub labels: &'a [&'a str],
    /// The only source of randomness.
    pub seed: u64,
    /// The user's parameters.
    pub params: &'a [(&'a str, &'a str)],
    index: u32,
}

/// Why the host did not answer. A plugin goes on without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The host or the model has no such capability.
    Unavailable,
    /// The query budget of this text is used up.
    Budget,
    /// An argument is wrong.
    Argument,
    /// The question failed in the host.
    Failed,
}

impl<'a> Text<'a> {
    /// Word `i`.
    pub fn word(&self, i: usize) -> &'a str {
        let (from, to) = self.words[i];
        &self.text[from..to]
    }

    /// The text with word `i` replaced.
    pub fn replace(&self, i: usize, with: &str) -> String {
        let (from, to) = self.words[i];
        let mut s = String::with_capacity(self.text.len() + with.len());
        s.push_str(&self.text[..from]);
        s.push_str(with);
        s.push_str(&self.text[to..]);
        s
    }

    /// A parameter, or what stands for it.
    pub fn param(&self, key: &str, otherwise: &'a str) -> &'a str {
        self.params.iter().find(|p| p.0 == key).map_or(otherwise, |p| p.1)
    }

    /// A generator with the text's seed.
    pub fn rng(&self) -> Rng {
        Rng(self.seed)
    }

    /// Class probabilities of texts, a row each. Each text costs a query.
    pub fn score(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Error> {
        let mut msg = Vec::new();
        put32(&mut msg, texts.len());
        for s in texts {
            put_str(&mut msg, s);
        }
        let n = self.labels.len();
        let out = ask(texts.len() * n * 4, |out| unsafe {
            host::score(self.index, msg.as_ptr(), msg.len() as u32, out.as_mut_ptr(), out.len() as u32)
        })?;
        let all = floats(&out);
        Ok(all.chunks(n.max(1)).map(|row| row.to_vec()).collect())
    }

    /// The norm of the loss's gradient at each word.
    pub fn importance(&self) -> Result<Vec<f32>, Error> {
        let mut spans = Vec::new();
        for &(a, b) in &self.words {
            put32(&mut spans, a);
            put32(&mut spans, b);
        }
        let out = ask(self.words.len() * 4, |out| unsafe {
            host::importance(
                self.index,
                self.text.as_ptr(),
                self.text.len() as u32,
                self.label as u32,
                spans.as_ptr(),
                self.words.len() as u32,
                out.as_mut_ptr(),
                out.len() as u32,
            )
        })?;
        Ok(floats(&out))
    }
}

/// Up to `n` words near `word` in the model's embedding space or the user's lexicon.
pub fn nearest(word: &str, n: usize) -> Result<Vec<String>, Error> {
    let out = ask(1024, |out| unsafe { host::nearest(word.as_ptr(), word.len() as u32, n as u32, out.as_mut_ptr(), out.len() as u32) })?;
    let mut r = Reader(&out);
    let k = r.u32();
    Ok((0..k).map(|_| String::from(r.str())).collect())
}

/// Tells the user something; the host may drop it.
pub fn log(message: &str) {
    unsafe { host::log(message.as_ptr(), message.len() as u32) }
}

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e3779b97f4a7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, 0 when `n` is below 2.
    pub fn below(&mut self, n: usize) -> usize {
        if n < 2 {
            0
        } else {
            (self.next_u64() % n as u64) as usize
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod host {
    #[link(wasm_import_module = "temper")]
    extern "C" {
        pub fn score(req: u32, texts: *const u8, len: u32, out: *mut u8, room: u32) -> i32;
        #[allow(clippy::too_many_arguments)]
        pub fn importance(req: u32, text: *const u8, len: u32, label: u32, spans: *const u8, count: u32, out: *mut u8, room: u32) -> i32;
        pub fn nearest(word: *const u8, len: u32, n: u32, out: *mut u8, room: u32) -> i32;
        pub fn log(text: *const u8, len: u32);
    }
}

/// Outside a host there is nobody to ask: plugins can be tested as plain Rust.
#[cfg(not(target_arch = "wasm32"))]
#[allow(clippy::too_many_arguments)]
mod host {
    pub unsafe fn score(_: u32, _: *const u8, _: u32, _: *mut u8, _: u32) -> i32 {
        -1
    }
    pub unsafe fn importance(_: u32, _: *const u8, _: u32, _: u32, _: *const u8, _: u32, _: *mut u8, _: u32) -> i32 {
        -1
    }
    pub unsafe fn nearest(_: *const u8, _: u32, _: u32, _: *mut u8, _: u32) -> i32 {
        -1
    }
    pub unsafe fn log(_: *const u8, _: u32) {}
}

fn ask(mut room: usize, mut f: impl FnMut(&mut [u8]) -> i32) -> Result<Vec<u8>, Error> {
    loop {
        let mut out = vec![0u8; room];
        match f(&mut out) {
            -1 => return Err(Error::Unavailable),
            -2 => return Err(Error::Budget),
            -3 => return Err(Error::Argument),
            n if n < 0 => return Err(Error::Failed),
            n if n as usize > room => room = n as usize,
            n => {
                out.truncate(n as usize);
                return Ok(out);
            }
        }
    }
}

fn put32(b: &mut Vec<u8>, v: usize) {
    b.extend_from_slice(&(v as u32).to_le_bytes());
}

fn put_str(b: &mut Vec<u8>, s: &str) {
    put32(b, s.len());
    b.extend_from_slice(s.as_bytes());
}

fn floats(b: &[u8]) -> Vec<f32> {
    b.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (a, b) = self.0.split_at(n);
        self.0 = b;
        a
    }

    fn u32(&mut self) -> usize {
        let b = self.take(4);
        u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize
    }

    fn str(&mut self) -> &'a str {
        let n = self.u32();
        core::str::from_utf8(self.take(n)).expect("UTF-8 from the host")
    }
}

/// Answers a request message: what [`plugin!`] calls. A message that is not one panics, which traps.
pub fn answer(request: &[u8], each: fn(&Text) -> Vec<String>) -> Vec<u8> {
    let mut r = Reader(request);
    let n = r.u32();
    let labels: Vec<&str> = (0..n).map(|_| r.str()).collect();
    let n = r.u32();
    let params: Vec<(&str, &str)> = (0..n).map(|_| (r.str(), r.str())).collect();
    let n = r.u32();
    let mut out = Vec::new();
    put32(&mut out, n);
    for index in 0..n {
        let seed = r.u32() as u64 | (r.u32() as u64) << 32;
        let (label, max, text) = (r.u32(), r.u32(), r.str());
        let k = r.u32();
        let words = (0..k).map(|_| (r.u32(), r.u32())).collect();
        let k = r.u32();
        let may = (0..k).map(|_| r.u32()).collect();
        let t = Text { text, words, may, max, label, labels: &labels, seed, params: &params, index: index as u32 };
        let mut list = each(&t);
        list.truncate(max);
        put32(&mut out, list.len());
        for s in &list {
            put_str(&mut out, s);
        }
    }
    out
}

/// Exports a plugin: its name, and the function that makes candidates of one text.
#[macro_export]
macro_rules! plugin {
    ($name:expr, $each:path) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            static mut REQUEST: Vec<u8> = Vec::new();
            static mut ANSWER: Vec<u8> = Vec::new();

            #[no_mangle]
            extern "C" fn temper_abi_version() -> u32 {
                1
            }

            #[no_mangle]
            extern "C" fn temper_name() -> u64 {
                let name: &'static str = $name;
                (name.as_ptr() as u64) << 32 | name.len() as u64
            }

            // A guest has one thread and the host never enters it twice at the same time.
            #[no_mangle]
            extern "C" fn temper_alloc(size: u32) -> u32 {
                unsafe {
                    REQUEST = vec![0u8; size.max(1) as usize];
                    let request: &Vec<u8> = &*(&raw const REQUEST);
                    request.as_ptr() as u32
                }
            }

            #[no_mangle]
            extern "C" fn temper_perturb(_at: u32, size: u32) -> u64 {
                unsafe {
                    let request: &Vec<u8> = &*(&raw const REQUEST);
                    ANSWER = $crate::answer(&request[..size as usize], $each);
                    let a: &Vec<u8> = &*(&raw const ANSWER);
                    (a.as_ptr() as u64) << 32 | a.len() as u64
                }
            }
        };
    };
}
