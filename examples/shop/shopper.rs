//! What a session holds: one typed struct, each field of which is a field of the session. Pure; no HTTP, no store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalogue::{PRODUCTS, Price, Product};

/// The most of one product that a cart takes.
pub(crate) const MOST: u32 = 20;
/// How many orders a session remembers.
const ORDERS_KEPT: usize = 5;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Shopper {
    pub(crate) cart: Cart,
    pub(crate) orders: Vec<Order>,
    /// Whether the drawer "your session" stays open from page to page.
    pub(crate) drawer_open: bool,
}

/// Slugs and quantities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cart(BTreeMap<String, u32>);

impl Cart {
    pub(crate) fn add(&mut self, slug: &str, quantity: u32) {
        let there = self.0.entry(slug.to_owned()).or_default();
        *there = there.saturating_add(quantity).min(MOST);
    }

    pub(crate) fn take_one_out(&mut self, slug: &str) {
        if let Some(there) = self.0.get_mut(slug) {
            *there = there.saturating_sub(1);
        }
        self.0.retain(|_, quantity| *quantity > 0);
    }

    pub(crate) fn remove(&mut self, slug: &str) {
        self.0.remove(slug);
    }

    /// Products and quantities, in the catalogue's order. What the shop does not sell any more is left out.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&'static Product, u32)> {
        PRODUCTS.iter().filter_map(|product| Some((product, *self.0.get(product.slug)?)))
    }

    pub(crate) fn count(&self) -> u32 {
        self.lines().map(|(_, quantity)| quantity).sum()
    }

    pub(crate) fn total(&self) -> Price {
        self.lines().map(|(product, quantity)| product.price * quantity).sum()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) number: String,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) items: Cart,
    /// As it was agreed; prices may change.
    pub(crate) total: Price,
}

/// There was nothing to order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EmptyCart;

impl Shopper {
    /// Turns the cart into an order. The number comes with the form: a second click finds the order of the first.
    pub(crate) fn check_out(&mut self, number: &str, name: &str, address: &str) -> Result<(), EmptyCart> {
        if self.order(number).is_some() {
            return Ok(());
        }
        if self.cart.count() == 0 {
            return Err(EmptyCart);
        }
        let total = self.cart.total();
        let items = std::mem::take(&mut self.cart);
        self.orders.push(Order { number: number.into(), name: name.into(), address: address.into(), items, total });
        let too_many = self.orders.len().saturating_sub(ORDERS_KEPT);
        self.orders.drain(..too_many);
        Ok(())
    }

    pub(crate) fn order(&self, number: &str) -> Option<&Order> {
        self.orders.iter().find(|order| order.number == number)
    }
}
