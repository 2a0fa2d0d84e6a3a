// The box "recent runs and jobs" on another page of the portal, such as Open OnDemand's dashboard. The page has a
// <div data-lossi-widget="ADDRESS OF THE APP">, whose content stays until this script has an answer. Untrusted names only ever
// become text. Nothing here can break the page around it.
"use strict";
(() => {
  const LIMIT = 5;
  const PATIENCE_MS = 15000;
  const REFRESHED_PROJECTS = 3;
  const COLOURS = { succeeded: "success", running: "primary", queued: "secondary", unknown: "secondary", cancelled: "secondary" };

  function element(tag, classes, text, ...children) {
    const node = document.createElement(tag);
    node.className = classes;
    if (text !== null) {
      node.textContent = String(text);
    }
    node.append(...children);
    return node;
  }

  // A link into the app, or plain text if the address leads elsewhere.
  function link(app, address, text, classes = "") {
    const target = new URL(String(address), location.href);
    if (target.origin !== location.origin || !target.pathname.startsWith(`${app}/`)) {
      return element("span", classes, text);
    }
    const anchor = element("a", classes, text);
    anchor.href = target.href;
    return anchor;
  }

  async function ask(address) {
    const answer = await fetch(address, {
      credentials: "same-origin",
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (!answer.ok || !(answer.headers.get("Content-Type") || "").startsWith("application/json")) {
      throw new Error(`it answers with status ${answer.status}`);
    }
    return answer.json();
  }

  function since(text) {
    const seconds = (Date.now() - Date.parse(text)) / 1000;
    const [unit, size] = [["day", 86400], ["hour", 3600], ["minute", 60]].find(([, size]) => seconds >= size) || ["second", 1];
    return Number.isFinite(seconds)
      ? new Intl.RelativeTimeFormat("en").format(-Math.max(0, Math.floor(seconds / size)), unit)
      : "";
  }

  function row(app, job) {
    const colour = COLOURS[job.state] || "danger";
    const state = element("span", `badge badge-${colour} bg-${colour} text-white`, String(job.state).replaceAll("_", " "));
    const tasks = job.tasks === 1 ? "" : ` ${job.done}/${job.tasks} tasks · `;
    const facts = element("small", "text-muted d-block text-break", `${tasks}${job.project_name} · ${since(job.created)}`);
    if (job.why) {
      facts.append(element("span", "d-block", job.why));
    }
    const runs = job.runs
      ? link(app, job.runs_page, job.runs === 1 ? "1 run" : `${job.runs} runs`, "btn btn-sm btn-link ml-auto ms-auto")
      : "";
    const name = element("div", "text-break", null, link(app, job.page, job.name), " ", state, facts);
    const item = element("li", "list-group-item d-flex align-items-start", null, name, runs);
    item.dataset.job = job.id;
    return item;
  }

  function show(box, app, answer) {
    const list = element("ul", "list-group list-group-flush", null, ...answer.items.map((job) => row(app, job)));
    const none = element("p", "text-muted mb-0 p-3", "No jobs yet. ");
    none.append(link(app, `${app}/`, "Start with Lossi"));
    box.replaceChildren(answer.items.length ? list : none);
    box.dataset.state = "shown";
  }

  async function fill(box) {
    const app = box.dataset.lossiWidget.replace(/\/+$/, "");
    const recent = `${app}/api/v1/recent?limit=${LIMIT}`;
    try {
      const first = await ask(recent);
      show(box, app, first);
      // Refresh projects with active jobs, one after another: the app answers one request at a time.
      const active = new Set(first.items.filter((job) => job.active).map((job) => job.project));
      for (const project of [...active].slice(0, REFRESHED_PROJECTS)) {
        await ask(`${app}/api/v1/jobs?${new URLSearchParams({ project, limit: "1" })}`);
      }
      if (active.size) {
        show(box, app, await ask(recent));
      }
    } catch (error) {
      if (box.dataset.state !== "shown") {
        box.dataset.state = "failed";
        const why = error.name === "TimeoutError" ? "it does not answer" : error.message;
        box.append(element("p", "text-muted mb-0 px-3 pb-3", `Recent jobs cannot be shown here: ${why}.`));
      }
    }
  }

  for (const box of document.querySelectorAll("[data-lossi-widget]:not([data-state])")) {
    box.dataset.state = "asked";
    fill(box);
  }
})();
