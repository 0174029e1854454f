// Figures in the colours of the page, and a table that follows the store. Without it the page works, and stands still.
(function () {
  "use strict";
  var EVERY = 10000; // milliseconds between two looks

  function colours() {
    var style = getComputedStyle(document.documentElement);
    return { ink: style.getPropertyValue("--ink").trim(), line: style.getPropertyValue("--line").trim() };
  }

  function paint() {
    if (!window.Plotly) return;
    var now = colours(), narrow = window.matchMedia("(max-width: 44rem)").matches;
    document.querySelectorAll(".plotly-graph-div").forEach(function (figure) {
      if (!figure.layout) return;
      var change = { "font.color": now.ink, plot_bgcolor: "rgba(0,0,0,0)" };
      Object.keys(figure.layout).forEach(function (name) {
        if (!/^[xy]axis\d*$/.test(name)) return;
        change[name + ".gridcolor"] = now.line;
        change[name + ".automargin"] = true;
        if (narrow) change[name + ".title.font.size"] = 11;
        if (narrow && name === "yaxis2" && figure.layout.xaxis2) change["yaxis2.showticklabels"] = false;
      });
      if (narrow && figure.querySelector(".legend")) { // a legend beside the figure would leave no room for it
        change["legend.orientation"] = "h";
        change["legend.x"] = 0;
        change["legend.y"] = 1;
        change["legend.yanchor"] = "bottom";
        change["margin.t"] = Math.max(70, (figure.layout.margin || {}).t || 0);
      }
      window.Plotly.relayout(figure, change);
    });
  }

  function follow(button) {
    var paused = false;
    button.hidden = false;
    button.addEventListener("click", function () {
      paused = !paused;
      button.setAttribute("aria-pressed", String(paused));
      button.textContent = paused ? "Go on" : "Pause";
    });
    setInterval(function () {
      if (!paused && !document.hidden) look();
    }, EVERY);
  }

  function look() {
    return fetch(location.href, { headers: { Accept: "text/html" } })
      .then(function (answer) { return answer.ok ? answer.text() : Promise.reject(answer.status); })
      .then(replace)
      .catch(function () { document.querySelector("#live").classList.add("stale"); });
  }

  function replace(text) {
    var fresh = new DOMParser().parseFromString(text, "text/html");
    ["#live", ".state"].forEach(function (place) {
      var old = document.querySelector(place), next = fresh.querySelector(place);
      if (!old || !next || old.innerHTML === next.innerHTML) return;
      var focused = old.contains(document.activeElement) && document.activeElement.getAttribute("href");
      old.replaceWith(next);
      next.querySelectorAll("a").forEach(function (link) {
        if (focused && link.getAttribute("href") === focused) link.focus({ preventScroll: true });
      });
    });
  }

  paint();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  var button = document.querySelector("#pause");
  if (button) follow(button);
  window.sieveLook = look;
})();
