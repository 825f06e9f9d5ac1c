//! Runs the shop as a process, and acts in it as a visitor does.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::SystemTime;

use redis_session_testkit::{Chromium, HttpBrowser, Page};

/// The program on a free port; dropping it ends it.
pub(crate) struct Shop {
    pub(crate) url: String,
    /// The first lines that it printed.
    pub(crate) greeting: String,
    child: Child,
    /// Open, since a program may not like to speak to nobody.
    _stdout: BufReader<ChildStdout>,
}

impl Shop {
    /// In memory, on loopback.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(variables: &[(&str, &str)]) -> Self {
        let mut child = command(variables).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            line
        };
        let url = line().trim_end().to_owned();
        assert!(!url.is_empty(), "the shop did not start");
        let greeting = line() + &line();
        Self { url, greeting, child, _stdout: stdout }
    }

    /// The address of one of its pages.
    pub(crate) fn page(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

impl Shop {
    /// Tells it to end, as `docker stop` does, and waits until it has.
    pub(crate) fn stop(mut self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the shop says on stderr when it does not start.
pub(crate) fn refusal(variables: &[(&str, &str)]) -> String {
    let mut child = command(variables).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A shop that starts after all would never end.
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let _ = child.kill();
    assert_eq!(first, "", "it started");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!child.wait().unwrap().success());
    said
}

fn command(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program());
    let of_redis =
        ["REDIS_URL", "REDIS_USER", "REDIS_PASSWORD", "ACCOUNTS_URL", "START_WITHOUT_REDIS", "SSL_CERT_FILE"];
    let of_sentinels = ["REDIS_SENTINEL_USER", "REDIS_SENTINEL_PASSWORD"];
    for name in ["BIND", "PUBLIC_URL", "SESSION_KEY", "INSTANCE"].iter().chain(&of_redis).chain(&of_sentinels) {
        command.env_remove(name);
    }
    command.env("PORT", "0").envs(variables.iter().copied()).stdin(Stdio::null());
    command
}

/// The example beside this test program. `cargo test` builds it, but not if told to build this test only.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples/shop");
    let built = program.metadata().and_then(|file| file.modified());
    let newest = newest_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/shop"));
    let how = "the shop is not built, or not anew: cargo test --features browser-tests,tls --no-run";
    assert!(built.is_ok_and(|built| built >= newest), "{how}");
    program
}

fn newest_in(directory: &Path) -> SystemTime {
    let files = directory.read_dir().unwrap().map(Result::unwrap);
    files.map(|file| file.metadata().unwrap().modified().unwrap()).max().unwrap()
}

/// A browser whose window shows most pages as a whole.
pub(crate) async fn browser() -> Chromium {
    let browser = Chromium::start().await;
    browser.resize(1280, 1600).await;
    browser
}

pub(crate) const PASSWORD: &str = "correct horse";

/// Fills in a name and the password on the log-in page or the one for new accounts, and sends it.
pub(crate) async fn credentials(browser: &Chromium, name: &str, password: &str) {
    browser.fill("#name", name).await;
    browser.fill("#password", password).await;
    browser.click(".door .delivery .button").await;
}

/// Makes an account of this name.
pub(crate) async fn sign_up(browser: &Chromium, shop: &Shop, name: &str) {
    browser.open(&shop.page("/signup")).await;
    credentials(browser, name, PASSWORD).await;
    browser.until_text(".who .name", name).await;
}

pub(crate) async fn log_in(browser: &Chromium, shop: &Shop, name: &str) {
    browser.open(&shop.page("/login")).await;
    credentials(browser, name, PASSWORD).await;
    browser.until_text(".who .name", name).await;
}

/// Sends a form as a page of the shop would, with the token that the home page has.
pub(crate) async fn post(browser: &HttpBrowser, path: &str, fields: &[(&str, &str)]) -> Page {
    let home = browser.get("/").await.body;
    let (_, token) = home.split_once(r#"name="csrf_token" value=""#).unwrap();
    let token = token.split('"').next().unwrap();
    let fields: Vec<_> = fields.iter().copied().chain([("csrf_token", token)]).collect();
    browser.post_form(path, &fields).await
}

/// Opens a product's page and puts so many into the cart.
pub(crate) async fn add(browser: &Chromium, shop: &Shop, slug: &str, quantity: u32) {
    browser.open(&shop.page(&format!("/plants/{slug}"))).await;
    browser.fill("#quantity", &quantity.to_string()).await;
    browser.click(".product button").await;
}

/// Names and quantities in the cart that is shown.
pub(crate) async fn cart(browser: &Chromium) -> Vec<(String, String)> {
    let (names, quantities) = (browser.texts(".lines h2").await, browser.texts(".lines .quantity").await);
    names.into_iter().zip(quantities.into_iter().map(|text| digits(&text))).collect()
}

/// The number in a text that says more to those who do not see it.
pub(crate) fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}
