//! Disguises words with emoji and enclosed letters: a word gets a picture inside, its letters become Ⓕⓡⓔⓔ or 🅵🆁🅴🅴, and words of money,
//! love and the like become the picture itself. Parameter "only": picture, circle or square.
use temper_plugin::{plugin, Text};

const MEANING: &[(&str, &str)] = &[
    ("money", "💰"), ("cash", "💵"), ("free", "🆓"), ("love", "❤️"), ("win", "🏆"), ("winner", "🏆"), ("prize", "🎁"), ("gift", "🎁"), ("phone", "📱"),
    ("call", "📞"), ("mail", "📧"), ("email", "📧"), ("text", "💬"), ("message", "💬"), ("link", "🔗"), ("click", "🖱️"), ("bank", "🏦"), ("card", "💳"),
    ("password", "🔑"), ("key", "🔑"), ("hot", "🔥"), ("fire", "🔥"), ("good", "👍"), ("bad", "👎"), ("great", "🎉"), ("fun", "🎉"), ("movie", "🎬"),
    ("film", "🎬"), ("music", "🎵"), ("happy", "😀"), ("sad", "😢"), ("funny", "😂"), ("boring", "🥱"), ("stupid", "🤡"), ("kill", "🔪"), ("die", "💀"),
    ("dead", "💀"), ("sex", "🍆"), ("hate", "😡"), ("yes", "✅"), ("no", "❌"), ("stop", "🛑"), ("time", "⏰"), ("home", "🏠"), ("car", "🚗"),
];

const PICTURES: &[&str] = &["✨", "🔥", "💯", "⭐", "🎈", "🌟"];

fn circle(c: char) -> char {
    match c {
        'a'..='z' => char::from_u32('ⓐ' as u32 + (c as u32 - 'a' as u32)).unwrap_or(c),
        'A'..='Z' => char::from_u32('Ⓐ' as u32 + (c as u32 - 'A' as u32)).unwrap_or(c),
        '1'..='9' => char::from_u32('①' as u32 + (c as u32 - '1' as u32)).unwrap_or(c),
        _ => c,
    }
}

fn square(c: char) -> char {
    match c.to_ascii_uppercase() {
        u @ 'A'..='Z' => char::from_u32(0x1f170 + (u as u32 - 'A' as u32)).unwrap_or(c),
        _ => c,
    }
}

fn disguise(t: &Text) -> Vec<String> {
    let mut out = Vec::new();
    let mut rng = t.rng();
    let only = t.param("only", "");
    for &i in &t.may {
        if out.len() >= t.max {
            break;
        }
        let word = t.word(i);
        let lower = word.to_lowercase();
        if only.is_empty() || only == "picture" {
            if let Some((_, picture)) = MEANING.iter().find(|m| m.0 == lower) {
                out.push(t.replace(i, picture));
            }
            let letters: Vec<char> = word.chars().collect();
            if letters.len() >= 3 {
                let cut = 1 + rng.below(letters.len() - 1);
                let mut s: String = letters[..cut].iter().collect();
                s.push_str(PICTURES[rng.below(PICTURES.len())]);
                s.extend(&letters[cut..]);
                out.push(t.replace(i, &s));
            }
        }
        for (name, map) in [("circle", circle as fn(char) -> char), ("square", square)] {
            if only.is_empty() || only == name {
                let s: String = word.chars().map(map).collect();
                if s != word {
                    out.push(t.replace(i, &s));
                }
            }
        }
    }
    out
}

plugin!("emoji", disguise);
