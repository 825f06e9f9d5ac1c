// Tells an open page that its session has ended, wherever that was done. All pages work without this.
const over = document.getElementById("over");
let news;

function listen() {
  news?.close();
  if (document.hidden || over.open) return;
  news = new EventSource(over.dataset.news);
  news.addEventListener("over", event => {
    news.close();
    over.querySelector("h2").textContent = event.data;
    over.showModal();
  });
  // The browser comes back by itself after a broken connection, but not after an answer that it cannot use.
  news.addEventListener("error", () => {
    if (news.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
}

// Only the window that is looked at listens: over HTTP/1.1 a browser has six connections for all of them.
document.addEventListener("visibilitychange", () => document.hidden ? news?.close() : listen());
// The page is about to go, and what its own form does to the session is no news.
addEventListener("submit", () => news?.close());
listen();
