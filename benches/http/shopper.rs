//! The state that every contender keeps: a shopper of eight fields, 596 bytes of JSON.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Shopper {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) language: String,
    pub(crate) visits: u64,
    pub(crate) cart: Vec<Item>,
    pub(crate) seen: Vec<u64>,
    pub(crate) voucher: Option<String>,
    pub(crate) address: Address,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) product: u64,
    pub(crate) title: String,
    pub(crate) cents: u64,
    pub(crate) quantity: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Address {
    pub(crate) street: String,
    pub(crate) city: String,
    pub(crate) postcode: String,
    pub(crate) country: String,
}

impl Shopper {
    /// What `/begin` puts into a new session.
    pub(crate) fn example() -> Self {
        let item = |product, title: &str, cents, quantity| Item { product, title: title.to_owned(), cents, quantity };
        Self {
            name: "Ada Lovelace".to_owned(),
            email: "ada.lovelace@example.org".to_owned(),
            language: "en-GB".to_owned(),
            visits: 1_000,
            cart: vec![
                item(48_213, "Notebook, squared, A5", 495, 3),
                item(50_117, "Fountain pen, fine, black", 2_950, 1),
                item(50_922, "Ink, royal blue, 50 ml", 780, 2),
                item(61_004, "Desk lamp, brass", 8_900, 1),
            ],
            seen: vec![48_213, 48_220, 50_117, 50_118, 50_922, 61_004, 61_010, 61_377],
            voucher: Some("SPRING-2026-TEN".to_owned()),
            address: Address {
                street: "12 St James's Square".to_owned(),
                city: "London".to_owned(),
                postcode: "SW1Y 4LB".to_owned(),
                country: "United Kingdom".to_owned(),
            },
        }
    }
}
