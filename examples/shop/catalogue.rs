//! What the shop sells. A session keeps slugs and numbers only; names and prices come from here.

use std::fmt;

/// An amount in pence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Price(pub(crate) u32);

impl std::ops::Mul<u32> for Price {
    type Output = Self;

    fn mul(self, quantity: u32) -> Self {
        Self(self.0 * quantity)
    }
}

impl std::iter::Sum for Price {
    fn sum<I: Iterator<Item = Self>>(prices: I) -> Self {
        Self(prices.map(|price| price.0).sum())
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "£{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

pub(crate) struct Product {
    /// Its name in addresses and carts.
    pub(crate) slug: &'static str,
    pub(crate) name: &'static str,
    /// What botanists call it, or what it is made of.
    pub(crate) kind: &'static str,
    pub(crate) price: Price,
    pub(crate) line: &'static str,
    pub(crate) story: &'static str,
    pub(crate) facts: [(&'static str, &'static str); 3],
    /// The colour behind the picture: a class of the style sheet.
    pub(crate) tone: &'static str,
    /// An SVG of our own, put into the page as it is.
    pub(crate) picture: &'static str,
}

/// The product of that name, if the shop has it (still).
pub(crate) fn find(slug: &str) -> Option<&'static Product> {
    PRODUCTS.iter().find(|product| product.slug == slug)
}

pub(crate) static PRODUCTS: [Product; 9] = [
    Product {
        slug: "monstera",
        name: "Monstera",
        kind: "Monstera deliciosa",
        price: Price(3400),
        line: "Great split leaves that get better with age.",
        story: "Every new leaf unrolls with more windows than the last. Give it a pole to climb and a corner to \
                fill, and it will be the first thing that guests talk about.",
        facts: [("Light", "Bright, no direct sun"), ("Water", "Once a week"), ("Height", "70 cm with its pot")],
        tone: "sage",
        picture: include_str!("pictures/monstera.svg"),
    },
    Product {
        slug: "cactus",
        name: "Saguaro",
        kind: "Carnegiea gigantea",
        price: Price(1500),
        line: "A desert landmark for the window sill.",
        story: "Two arms and one flower: this one is ahead of its age. It wants all the sun you have, and otherwise \
                to be left in peace.",
        facts: [("Light", "Full sun"), ("Water", "Once a month"), ("Height", "30 cm with its pot")],
        tone: "sand",
        picture: include_str!("pictures/cactus.svg"),
    },
    Product {
        slug: "pilea",
        name: "Pilea",
        kind: "Pilea peperomioides",
        price: Price(1600),
        line: "Round leaves on the move, all day long.",
        story: "It turns to the window like a crowd at a match, and gives you a new plant or two each spring. Keep \
                one, give one away: that is how it came to Europe.",
        facts: [
            ("Light", "Bright, turn it weekly"),
            ("Water", "When the soil is dry"),
            ("Height", "35 cm with its pot"),
        ],
        tone: "blush",
        picture: include_str!("pictures/pilea.svg"),
    },
    Product {
        slug: "snake-plant",
        name: "Snake plant",
        kind: "Dracaena trifasciata",
        price: Price(2200),
        line: "Forgives dark corners and forgotten watering.",
        story: "The plant for people who travel. It stands where nothing else would, asks for nothing, and looks as \
                if it had been drawn with a ruler.",
        facts: [("Light", "Anything but darkness"), ("Water", "Every third week"), ("Height", "55 cm with its pot")],
        tone: "sky",
        picture: include_str!("pictures/snake-plant.svg"),
    },
    Product {
        slug: "fern",
        name: "Boston fern",
        kind: "Nephrolepis exaltata",
        price: Price(1900),
        line: "A fountain of green for the bathroom shelf.",
        story: "Ferns are older than flowers, and ask for what they have always had: shade, and water in the air. \
                A bathroom with a window is its idea of a forest.",
        facts: [("Light", "Half shade"), ("Water", "Keep it moist"), ("Height", "45 cm with its pot")],
        tone: "sand",
        picture: include_str!("pictures/fern.svg"),
    },
    Product {
        slug: "string-of-pearls",
        name: "String of pearls",
        kind: "Curio rowleyanus",
        price: Price(1800),
        line: "Hangs in the window like a curtain of beads.",
        story: "Each pearl is a leaf with a reservoir inside. It comes in a hanging bowl with its cord: one hook, and \
                the window is dressed.",
        facts: [("Light", "Bright, some sun"), ("Water", "Every second week"), ("Length", "40 cm below its pot")],
        tone: "sage",
        picture: include_str!("pictures/string-of-pearls.svg"),
    },
    Product {
        slug: "rubber-plant",
        name: "Rubber plant",
        kind: "Ficus elastica",
        price: Price(2900),
        line: "Dark, glossy, and as straight as a candle.",
        story: "New leaves arrive in a red wrapper and turn the deepest green in the shop. Wipe them now and then: \
                it is the closest that a plant comes to being polished.",
        facts: [("Light", "Bright, no direct sun"), ("Water", "Every ten days"), ("Height", "80 cm with its pot")],
        tone: "sky",
        picture: include_str!("pictures/rubber-plant.svg"),
    },
    Product {
        slug: "aloe",
        name: "Aloe",
        kind: "Aloe vera",
        price: Price(1400),
        line: "A first-aid kit that grows back.",
        story: "A leaf of it on a burnt finger helps at once, and the plant hardly notices. It sits in a glazed bowl \
                that is wide enough for its children.",
        facts: [("Light", "Sunny"), ("Water", "Every second week"), ("Height", "35 cm with its pot")],
        tone: "blush",
        picture: include_str!("pictures/aloe.svg"),
    },
    Product {
        slug: "watering-can",
        name: "Watering can",
        kind: "Brushed copper",
        price: Price(3900),
        line: "One litre, a long spout, and no drips.",
        story: "Spun, soldered and brushed by hand. The spout reaches below the leaves, where the water should go, and \
                the copper will be darker and better every year.",
        facts: [("Holds", "1 litre"), ("Weight", "620 g"), ("Care", "A dry cloth")],
        tone: "sand",
        picture: include_str!("pictures/watering-can.svg"),
    },
];
