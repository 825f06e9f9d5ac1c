//! What the forms send, and which of it can be used.

use redis_session::ReturnTo;
use serde::Deserialize;

use crate::accounts::Name;
use crate::catalogue::{Product, find};
use crate::passwords::Password;
use crate::shopper::MOST;

/// So many of a product, for the cart.
#[derive(Clone, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) slug: String,
    #[serde(default = "one")]
    pub(crate) quantity: u32,
}

fn one() -> u32 {
    1
}

impl Wanted {
    /// The product, if there is one of that name, and if it is that many that a cart takes.
    pub(crate) fn product(&self) -> Option<&'static Product> {
        find(&self.slug).filter(|_| (1..=MOST).contains(&self.quantity))
    }
}

/// A button beside a line in the cart.
#[derive(Deserialize)]
pub(crate) struct Change {
    pub(crate) step: Step,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Step {
    More,
    Fewer,
    Remove,
}

/// The checkout.
#[derive(Clone, Default, Deserialize)]
pub(crate) struct Delivery {
    /// Drawn with the form, so that sending it twice is one order.
    pub(crate) number: String,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) address: String,
}

impl Delivery {
    /// An empty form for a new order.
    pub(crate) fn new() -> Self {
        // Zero would do if the system has no random numbers: it only tells the orders of one visitor apart.
        let random = getrandom::u32().unwrap_or_default() % 1_000_000;
        Self { number: format!("FC-{random:06}"), ..Self::default() }
    }

    /// The names of the fields that cannot be used.
    pub(crate) fn problems(&self) -> Vec<&'static str> {
        let is_text = |text: &str| !text.trim().is_empty() && text.len() <= 400;
        let is_number = |text: &str| is_text(text) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let checks = [
            ("number", is_number(&self.number)),
            ("name", is_text(&self.name)),
            ("email", is_text(&self.email) && self.email.contains('@')),
            ("address", is_text(&self.address)),
        ];
        checks.into_iter().filter(|(_, fits)| !fits).map(|(name, _)| name).collect()
    }
}

/// Whether the drawer stays open.
#[derive(Deserialize)]
pub(crate) struct Drawer {
    pub(crate) open: bool,
    /// The path of the page that it was on.
    page: String,
}

impl Drawer {
    /// Where to go back to.
    pub(crate) fn page(&self) -> &str {
        // What browsers read as `//` would lead to another site.
        let is_ours = |rest: &str| rest.chars().next().is_none_or(|c| c.is_ascii_alphanumeric());
        if self.page.strip_prefix('/').is_some_and(is_ours) { &self.page } else { "/" }
    }
}

/// The forms of the log-in page and of the one for new accounts.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Credentials {
    /// As it was typed.
    pub(crate) name: String,
    pub(crate) password: Password,
    /// Beyond the end of the browser.
    pub(crate) remember: bool,
    pub(crate) return_to: ReturnTo,
}

impl Credentials {
    /// The name of an account that may be opened with them, or the names of the fields that cannot be used.
    pub(crate) fn for_new_account(&self) -> Result<Name, Vec<&'static str>> {
        match (self.name.parse(), self.password.will_do()) {
            (Ok(name), true) => Ok(name),
            (Ok(_), false) => Err(vec!["password"]),
            (Err(_), true) => Err(vec!["name"]),
            (Err(_), false) => Err(vec!["name", "password"]),
        }
    }
}

/// The password once more.
#[derive(Deserialize)]
pub(crate) struct Confirmation {
    pub(crate) password: Password,
    #[serde(default)]
    pub(crate) return_to: ReturnTo,
}

/// Another password.
#[derive(Deserialize)]
pub(crate) struct NewPassword {
    pub(crate) present: Password,
    pub(crate) new: Password,
}

/// A button beside a device.
#[derive(Deserialize)]
pub(crate) struct EndDevice {
    /// Names its session.
    pub(crate) handle: String,
}
