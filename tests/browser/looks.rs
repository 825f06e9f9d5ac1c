//! What the pages look like: light and dark, on small screens, by keyboard, and to those who do not see them.

use std::collections::HashSet;
use std::path::Path;

use redis_session_testkit::Chromium;

use crate::shop::{Shop, add, browser, log_in, sign_up};

/// Names and paths, those first that nobody sees who is logged in.
const PAGES: [&[(&str, &str)]; 2] = [
    &[
        ("catalogue", "/"),
        ("product", "/plants/monstera"),
        ("cart", "/cart"),
        ("about", "/about"),
        ("nothing", "/nothing"),
        ("login", "/login"),
        ("signup", "/signup"),
    ],
    &[("checkout", "/checkout"), ("confirm", "/confirm"), ("account", "/account")],
];

/// Texts whose contrast is under what WCAG 2.2, section 1.4.3, asks for: 4.5, and 3 for large ones.
const FAINT: &str = r"
    const parts = color => color.match(/[\d.]+/g).map(Number);
    const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = color => {
        const [r, g, b] = parts(color).map(part => linear(part / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = one => {
        for (; one; one = one.parentElement) {
            const color = getComputedStyle(one).backgroundColor;
            if ((parts(color)[3] ?? 1) === 1) return color;
        }
        return 'rgb(255, 255, 255)';
    };
    const faint = [];
    for (const one of document.querySelectorAll('body *')) {
        const hasText = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        if (!hasText || one.closest('svg, .unseen, .skip') || !one.checkVisibility() || one.disabled) continue;
        const style = getComputedStyle(one);
        const [a, b] = [light(style.color), light(behind(one))].sort((a, b) => b - a);
        const ratio = (a + 0.05) / (b + 0.05);
        const size = parseFloat(style.fontSize);
        const isLarge = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
        if (ratio < (isLarge ? 3 : 4.5)) faint.push(`${one.tagName} ${one.textContent.trim()}: ${ratio.toFixed(2)}`);
    }
    return faint";

/// What somebody who does not see the page would miss.
const MUTE: &str = r"
    const all = css => [...document.querySelectorAll(css)];
    const levels = all('main :is(h1, h2, h3)').map(heading => +heading.tagName[1]);
    const jumps = levels.filter((level, at) => level > (levels[at - 1] ?? 0) + 1);
    const nameless = all('button, a, summary').filter(one => !(one.ariaLabel ?? one.textContent).trim());
    const unlabelled = all('input:not([type=hidden]), textarea').filter(one => !one.labels.length);
    const needed = ['main', 'header', 'footer', 'nav', 'title', 'html[lang]'];
    return [
        ...unlabelled.map(one => `no label: ${one.name}`),
        ...nameless.map(one => `no name: ${one.outerHTML}`),
        ...all('svg').filter(one => one.ariaHidden !== 'true').map(() => 'a picture that is read aloud'),
        ...needed.filter(css => !all(css).length).map(css => `no ${css}`),
        ...jumps.map(level => `a heading ${level} out of order`),
        ...(all('h1').length === 1 ? [] : ['not one h1']),
        ...all('[id]').filter(one => all(`[id='${one.id}']`).length > 1).map(one => `twice: ${one.id}`),
    ]";

/// What reaches out of the page's content.
const TOO_WIDE: &str = r"
    const end = document.querySelector('main').getBoundingClientRect().right + 1;
    return [...document.querySelectorAll('.top, .top *, main *, .bottom *')]
        .filter(one => !one.closest('.unseen') && one.getBoundingClientRect().right > end)
        .map(one => one.outerHTML)";

#[tokio::test]
async fn pages_are_readable_in_light_and_dark_and_fit_small_screens() {
    let (shop, other) = (Shop::start(), browser().await);
    let browser = browser().await;
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shop");
    std::fs::create_dir_all(&pictures).unwrap();
    add(&browser, &shop, "string-of-pearls", 12).await;
    let mut papers = HashSet::new();
    let pages: Vec<_> = schemes_of(PAGES[0]).chain(schemes_of(PAGES[1])).collect();
    for (at, (name, path, scheme)) in pages.into_iter().enumerate() {
        browser.resize(1280, 900).await;
        if at == 2 * PAGES[0].len() {
            sign_up(&browser, &shop, "a-name_that.has-32-characters-in").await;
            log_in(&other, &shop, "a-name_that.has-32-characters-in").await;
        }
        browser.dark(scheme == "dark").await;
        browser.open(&shop.page(path)).await;
        browser.screenshot(pictures.join(format!("{name}-{scheme}.png"))).await;
        browser.click(".drawer summary").await;
        browser.screenshot(pictures.join(format!("{name}-{scheme}-drawer.png"))).await;
        assert_eq!(browser.script(FAINT).await, serde_json::json!([]), "{name} {scheme}");
        assert_eq!(browser.script(MUTE).await, serde_json::json!([]), "{name} {scheme}");
        browser.click(".drawer summary").await;
        browser.resize(320, 640).await;
        browser.screenshot(pictures.join(format!("{name}-{scheme}-small.png"))).await;
        assert_eq!(browser.script(TOO_WIDE).await, serde_json::json!([]), "{name} {scheme}");
        let paper = browser.script("return getComputedStyle(document.body).backgroundColor").await;
        papers.insert(format!("{scheme} {paper}"));
    }
    assert_eq!(papers.len(), 2, "{papers:?}");

    // The news that the session is over, in the dark.
    other.open(&shop.page("/account")).await;
    other.click(".devices form .quiet").await;
    browser.until_text("#over h2", "You were logged out on another device").await;
    browser.screenshot(pictures.join("over-dark-small.png")).await;
    assert_eq!(browser.script(FAINT).await, serde_json::json!([]), "over");
    browser.resize(1280, 900).await;
    browser.screenshot(pictures.join("over-dark.png")).await;
}

/// Each page in light and in dark.
fn schemes_of(
    pages: &'static [(&'static str, &'static str)],
) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    ["light", "dark"].into_iter().flat_map(|scheme| pages.iter().map(move |(name, path)| (*name, *path, scheme)))
}

#[tokio::test]
async fn everything_can_be_reached_by_keyboard_and_shows_where_one_is() {
    let (shop, browser) = (Shop::start(), browser().await);
    browser.open(&shop.page("/")).await;
    press(&browser, "Tab", 9).await;
    assert_eq!(browser.text(":focus").await, "Skip to the content");
    let mut reached = Vec::new();
    for _ in 0..200 {
        press(&browser, "Tab", 9).await;
        // A card shows the focus of the link that covers it.
        let look = "const one = document.activeElement, shown = one.closest('.card:has(a:focus)') ?? one;
            return [one.tagName, one.textContent.trim(), getComputedStyle(shown).outlineStyle, one.matches('body')]";
        let (tag, text, outline, is_over): (String, String, String, bool) =
            serde_json::from_value(browser.script(look).await).unwrap();
        if is_over {
            break;
        }
        assert_eq!(outline, "solid", "{tag} {text}");
        reached.push(text);
    }
    for text in ["Cart", "See the plants", "Monstera", "Add Watering can to cart", "Your session"] {
        assert!(reached.iter().any(|one| one == text), "{text} in {reached:?}");
    }
}

async fn press(browser: &Chromium, key: &str, code: u32) {
    for kind in ["rawKeyDown", "keyUp"] {
        let event = serde_json::json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
        browser.devtools("Input.dispatchKeyEvent", event).await;
    }
}
