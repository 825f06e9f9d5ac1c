//! What the pages look like: light and dark, on small screens, by keyboard, and to those who do not see them.

use std::path::Path;

use redis_session_testkit::Chromium;

use crate::shop::{Shop, add, browser};

const PAGES: [(&str, &str); 6] = [
    ("catalogue", "/"),
    ("product", "/plants/monstera"),
    ("cart", "/cart"),
    ("checkout", "/checkout"),
    ("about", "/about"),
    ("nothing", "/nothing"),
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
    let (shop, browser) = (Shop::start(), browser().await);
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shop");
    std::fs::create_dir_all(&pictures).unwrap();
    add(&browser, &shop, "string-of-pearls", 12).await;
    let mut papers = Vec::new();
    for (scheme, dark) in [("light", false), ("dark", true)] {
        browser.dark(dark).await;
        for (name, path) in PAGES {
            browser.resize(1280, 900).await;
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
        }
        papers.push(browser.script("return getComputedStyle(document.body).backgroundColor").await);
    }
    assert_ne!(papers[0], papers[1], "light and dark");
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
