//! A small mutator: valid examples with a few things gone wrong, from a seed, the same every time.
//!
//! It knows nothing of coverage. What it lacks in cleverness the dictionary makes up for: the tokens
//! and numbers at which decoders have their edges.

const TOKENS: &[&[u8]] = &[
    b"\"data\":",
    b"\"shape\":",
    b"\"datatype\":\"",
    b"\"name\":\"x\",",
    b"\"parameters\":{",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b"NaN",
    b"-Infinity",
    b"BYTES",
    b"BOOL",
    b"FP16",
    b"FP64",
    b"UINT64",
    b"INT8",
    b"binary_data_size",
    b"-",
    b"\xff\xff\xff\xff",
    b"[[[[[[[[[[[[[[[[[[[[",
    b"\x00\x00\x00\x00",
    b"\xc3\x28",
    b"/",
    b"..",
    b"00-",
];

const NUMBERS: &[&[u8]] = &[
    b"-1",
    b"0",
    b"1",
    b"4",
    b"127",
    b"128",
    b"255",
    b"256",
    b"65504",
    b"65520",
    b"1.5",
    b"-0",
    b"1e3",
    b"1e39",
    b"1e999",
    b"1e-999",
    b"9007199254740993",
    b"2147483648",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"0.1e-45",
    b"16777217",
];

/// Makes inputs of examples.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// Makes a mutator that yields the same inputs for the same seed.
    pub fn new(seed: u64) -> Self {
        Mutator { state: seed }
    }

    /// Returns one of the examples, changed in one to eight places; sometimes only random bytes.
    pub fn next_input(&mut self, examples: &[Vec<u8>]) -> Vec<u8> {
        if examples.is_empty() || self.below(50) == 0 {
            let length = self.below(200);
            return (0..length).map(|_| self.byte()).collect();
        }
        let mut input = examples[self.below(examples.len())].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut input, examples);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, examples: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(16)).min(input.len());
        match self.below(9) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.byte(),
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => self.replace(input, at..at, TOKENS),
            5 => self.replace_number(input, at),
            6 => {
                let part = input[at..end].to_vec();
                let part = part.repeat(1 + self.below(40));
                input.splice(at..at, part);
            }
            7 => {
                let other = &examples[self.below(examples.len())];
                let from = self.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
            _ => self.replace(input, at..end, TOKENS),
        }
    }

    /// Puts an interesting number in place of the next run of digits.
    fn replace_number(&mut self, input: &mut Vec<u8>, from: usize) {
        let Some(start) = input[from..].iter().position(u8::is_ascii_digit) else { return };
        let start = from + start;
        let digits = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.replace(input, start..start + digits, NUMBERS);
    }

    fn replace(&mut self, input: &mut Vec<u8>, range: std::ops::Range<usize>, words: &[&[u8]]) {
        let word = words[self.below(words.len())];
        input.splice(range, word.iter().copied());
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
