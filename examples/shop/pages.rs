//! What stands on each page. Everything that is not a literal of ours is escaped by `html!`.

use maud::{Markup, PreEscaped, html};
use redis_session::{CsrfToken, Error};

use crate::catalogue::{PRODUCTS, Product};
use crate::forms::Delivery;
use crate::layout::csrf;
use crate::shopper::{Cart, MOST, Order};

pub(crate) fn catalogue(token: &CsrfToken) -> Markup {
    html! {
        section.hero {
            div {
                h1 { "Green company for every room" }
                p { "House plants that forgive, in pots thrown and glazed by hand. Delivered in a week, at no charge." }
                a.button href="#plants" { "See the plants" }
            }
            div.shelf aria-hidden="true" {
                @for slug in ["fern", "snake-plant", "aloe"] {
                    @if let Some(product) = crate::catalogue::find(slug) { (picture(product)) }
                }
            }
        }
        section #plants aria-labelledby="plants-title" {
            h2 #plants-title { "All plants" }
            ul.grid { @for product in &PRODUCTS { li { (card(product, token)) } } }
        }
    }
}

fn card(product: &Product, token: &CsrfToken) -> Markup {
    html! {
        article.card {
            div class={ "picture " (product.tone) } { (picture(product)) }
            h3 { a href={ "/plants/" (product.slug) } { (product.name) } }
            p { (product.line) }
            div.buy {
                span.price { (product.price) }
                form method="post" action="/cart" {
                    (csrf(token))
                    input type="hidden" name="slug" value=(product.slug);
                    button.button { "Add" span.unseen { " " (product.name) } " to cart" }
                }
            }
        }
    }
}

fn picture(product: &Product) -> Markup {
    PreEscaped(product.picture.to_owned())
}

pub(crate) fn product(product: &Product, token: &CsrfToken) -> Markup {
    html! {
        nav.crumbs aria-label="Breadcrumb" { a href="/#plants" { "All plants" } }
        article.product {
            div class={ "picture " (product.tone) } { (picture(product)) }
            div {
                h1 { (product.name) }
                p.kind { (product.kind) }
                p.lead { (product.line) }
                p { (product.story) }
                dl.care { @for (what, how) in product.facts { div { dt { (what) } dd { (how) } } } }
                form.buy method="post" action="/cart" {
                    (csrf(token))
                    span.price { (product.price) }
                    input type="hidden" name="slug" value=(product.slug);
                    label for="quantity" { "Quantity" }
                    input #quantity type="number" name="quantity" value="1" min="1" max=(MOST) required;
                    button.button { "Add to cart" }
                }
            }
        }
    }
}

pub(crate) fn cart(cart: &Cart, token: &CsrfToken) -> Markup {
    if cart.count() == 0 {
        return html! {
            section.empty {
                h1 { "Your cart is empty" }
                p { "It is the right size for a fern." }
                a.button href="/#plants" { "See the plants" }
            }
        };
    }
    html! {
        h1 { "Your cart" }
        div.beside {
            ul.lines { @for (product, quantity) in cart.lines() { li { (line(product, quantity, token)) } } }
            section.summary aria-labelledby="summary-title" {
                h2 #summary-title { "Summary" }
                (total(cart))
                a.button href="/checkout" { "Go to checkout" }
            }
        }
    }
}

fn line(product: &Product, quantity: u32, token: &CsrfToken) -> Markup {
    html! {
        div class={ "picture " (product.tone) } { (picture(product)) }
        div {
            h2 { a href={ "/plants/" (product.slug) } { (product.name) } }
            p { (product.price) " each" }
        }
        form.steps method="post" action={ "/cart/" (product.slug) } {
            (csrf(token))
            button.step name="step" value="fewer" aria-label={ "One " (product.name) " fewer" } { "−" }
            span.quantity { span.unseen { "Quantity: " } (quantity) }
            button.step name="step" value="more" aria-label={ "One " (product.name) " more" }
                disabled[quantity >= MOST] { "+" }
            button.remove name="step" value="remove" { "Remove" span.unseen { " " (product.name) } }
        }
        span.price { (product.price * quantity) }
    }
}

fn total(cart: &Cart) -> Markup {
    html! {
        dl.total {
            div { dt { "Plants and pots" } dd { (cart.total()) } }
            div { dt { "Delivery" } dd { "free" } }
            div.sum { dt { "Total" } dd { (cart.total()) } }
        }
    }
}

/// The form, with what is wrong about what it held.
pub(crate) fn checkout(cart: &Cart, delivery: &Delivery, problems: &[&str], token: &CsrfToken) -> Markup {
    let field = |name: &'static str, label: &str, hint: &str, input: Markup| {
        let is_wrong = problems.contains(&name);
        html! {
            div.field.wrong[is_wrong] {
                label for=(name) { (label) }
                (input)
                @if is_wrong { p.hint id={ (name) "-hint" } { (hint) } }
            }
        }
    };
    let described = |name: &'static str| problems.contains(&name).then(|| format!("{name}-hint"));
    let invalid = |name: &'static str| problems.contains(&name).then_some("true");
    html! {
        h1 { "Checkout" }
        div.beside {
            form.delivery method="post" action="/checkout" {
                (csrf(token))
                @if !problems.is_empty() {
                    p.alert role="alert" { "Something is missing: please look at the marked fields." }
                }
                input type="hidden" name="number" value=(delivery.number);
                (field("name", "Name", "Please tell us who it is for.", html! {
                    input #name name="name" autocomplete="name" value=(delivery.name) required maxlength="200"
                        aria-invalid=[invalid("name")] aria-describedby=[described("name")];
                }))
                (field("email", "Email", "Please give an address with an @ in it.", html! {
                    input #email type="email" name="email" autocomplete="email" value=(delivery.email) required
                        maxlength="200" aria-invalid=[invalid("email")] aria-describedby=[described("email")];
                }))
                (field("address", "Address", "Please tell us where it should go.", html! {
                    textarea #address name="address" autocomplete="street-address" rows="3" required maxlength="200"
                        aria-invalid=[invalid("address")] aria-describedby=[described("address")] { (delivery.address) }
                }))
                button.button { "Order now" }
                p.note { "This is an example: nothing is paid, and nothing is sent." }
            }
            section.summary aria-labelledby="summary-title" {
                h2 #summary-title { "Your order" }
                (items(cart))
                (total(cart))
            }
        }
    }
}

fn items(cart: &Cart) -> Markup {
    html! {
        ul.items {
            @for (product, quantity) in cart.lines() {
                li {
                    span class={ "picture " (product.tone) } { (picture(product)) }
                    span { (quantity) " × " (product.name) }
                    span.price { (product.price * quantity) }
                }
            }
        }
    }
}

pub(crate) fn order(order: &Order) -> Markup {
    html! {
        section.thanks {
            h1 { "Thank you, " (order.name) }
            p.lead { "Your order " strong { (order.number) } " is on its way to:" }
            address { (order.address) }
            (items(&order.items))
            dl.total { div.sum { dt { "Total" } dd { (order.total) } } }
            a.button href="/" { "Back to the plants" }
        }
    }
}

pub(crate) fn about() -> Markup {
    html! {
        article.prose {
            h1 { "About the shop" }
            p.lead { "Two people, one greenhouse, a kiln, and a library that keeps carts." }
            h2 { "What it shows" }
            p {
                "Carts are kept in sessions, and sessions in Redis, or in memory to try it out. Open a second "
                "window and add a plant in both at once: both are in the cart. End the session in one window while "
                "the other one is busy: it stays ended."
            }
            p {
                "Make an account, and your cart comes with you. Log in with another browser as well, and end its "
                "session from the list of your devices: its window knows at once, whichever instance serves it."
            }
            p {
                "Open “Your session” at the edge of any page to see what is stored, and what the last request cost. "
                "This page did not ask for the session, so it cost nothing."
            }
            h2 { "How it is made" }
            p {
                "Every button is a form with a token of its own session, every form ends in a redirect, and every "
                "page is made on the server. There is one small script, which tells a window that it was "
                "logged out; all else works without it."
            }
        }
    }
}

pub(crate) fn not_found() -> Markup {
    html! {
        section.empty {
            h1 { "There is nothing here" }
            p { "It may have been sold, or it never grew." }
            a.button href="/" { "Back to the plants" }
        }
    }
}

/// What visitors see when something is wrong with their session; the details are in the log.
pub(crate) fn problem(error: &Error) -> Markup {
    let (title, why, page, action) = match error {
        error if error.is_unavailable() => return unavailable(),
        error if error.is_csrf() => (
            "This form is not valid any more",
            "You have logged in or out since the page was opened, or another site has sent it. Nothing was changed.",
            "/",
            "Back to the plants",
        ),
        error if error.is_not_logged_in() => {
            ("You are not logged in", "Nothing was changed. Please log in and try again.", "/login", "Log in")
        }
        error if error.is_step_up() => (
            "Is it still you?",
            "Nothing was ordered. Please type your password once more, and then send the form again.",
            "/confirm?return_to=/checkout",
            "Go on",
        ),
        error if error.is_login_refused() => (
            "You were logged out everywhere",
            "That happened just while you were logging in, so it counts for this login too. Please try again.",
            "/login",
            "Log in",
        ),
        _ => ("That did not work", "Nothing was changed. Please try again.", "/cart", "Try again"),
    };
    html! {
        section.empty {
            h1 { (title) }
            p { (why) }
            a.button href=(page) { (action) }
        }
    }
}

pub(crate) fn unavailable() -> Markup {
    html! {
        section.empty {
            h1 { "Our till needs a moment" }
            p { "Your cart is safe, but we cannot reach it right now. Please try again." }
            a.button href="/cart" { "Try again" }
        }
    }
}
