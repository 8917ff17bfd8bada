/*
 * One upload as the user sees it: title, one bar for the bytes sent and then for the bytes
 * ingested, the state of each file with the reason of a failure, and at the end the report.
 */

import { h, icon, pathView, sizeOf } from "./dom.js";
import { messageOf } from "./dialogs.js";
import { isolate, label, say } from "./i18n.js";
import { reportView } from "./report.js";

const SHOWN_FILES = 200;
const REDRAW_MS = 200;
// Files worth seeing first: what failed, then what is being done, then what waits.
const ORDER = { failed: 0, running: 1, empty: 2, queued: 3, done: 4, unchanged: 5 };

/** `batch` as in files.js; `onCancel` is called when the user cancels. */
export function uploadCard(batch, { onCancel }) {
  const bar = h("progress", { max: 1 });
  const status = h("p", { class: "fine", role: "status", text: "uploadWaiting" });
  const files = fileList();
  const outcome = h("div", {});
  const cancel = h("button", {
    class: "button small",
    type: "button",
    text: "cancel",
    onclick: stop,
  });
  const close = h(
    "button",
    {
      class: "icon-button",
      type: "button",
      label: "close",
      hidden: true,
      onclick: () => node.remove(),
    },
    icon("close"),
  );
  const title =
    batch.root === null
      ? ["uploadFiles", { n: batch.files.length }]
      : ["uploadFolder", { name: isolate(batch.root) }];
  const node = h(
    "section",
    { class: "card upload" },
    h("header", { class: "row" }, h("h2", { class: "grow", text: title }), cancel, close),
    bar,
    status,
    batch.skipped ? h("p", { class: "fine", text: ["skipped", { n: batch.skipped }] }) : null,
    outcome,
    files.node,
  );
  let latest = null;
  let timer = null;
  label(bar, ...title);
  bar.removeAttribute("value");

  function stop() {
    cancel.disabled = true;
    say(status, "cancelling");
    onCancel();
  }

  function settle(state) {
    node.dataset.state = state;
    bar.hidden = true;
    cancel.hidden = true;
    close.hidden = false;
  }

  function sent(bytes, total) {
    bar.max = total || 1;
    bar.value = bytes;
    say(status, "uploading", { sent: sizeOf(bytes), total: sizeOf(total) });
  }

  /** Large jobs change many times a second; the card is drawn five times at most. */
  function job(next) {
    latest = next;
    if (!["queued", "running"].includes(next.state)) draw();
    else timer ??= setTimeout(draw, REDRAW_MS);
  }

  function draw() {
    clearTimeout(timer);
    timer = null;
    const { state, progress = {}, files: rows = [], report, error } = latest;
    drawProgress(state, progress);
    if (state === "queued" || state === "running") {
      files.show(rows);
      return;
    }
    // The report tells of all other files.
    files.ended(report ? rows.filter((row) => row.state === "failed") : rows);
    settle(state);
    outcome.replaceChildren();
    if (state === "failed") fail("jobFailed", error ?? "");
    else if (state === "interrupted") fail("interrupted", error ?? "");
    else say(status, state === "cancelled" ? "jobCancelled" : "jobDone");
    if (report) outcome.append(reportView(report, rows));
  }

  function drawProgress(state, progress) {
    if (progress.bytes_total) {
      bar.max = progress.bytes_total;
      bar.value = progress.bytes_done ?? 0;
    } else {
      bar.removeAttribute("value");
    }
    if (cancel.disabled) return;
    const { files_done: done = 0, files_total: total = 0 } = progress;
    if (state === "queued") say(status, "jobQueued");
    else if (total && progress.seconds_left != null)
      say(status, "fileProgressLeft", { done, total, n: minutes(progress.seconds_left) });
    else if (total) say(status, "fileProgress", { done, total });
    else say(status, "jobRunning");
  }

  function fail(key, message) {
    say(status, key, { message });
    outcome.append(h("p", { class: "problem" }, message));
  }

  return {
    node,
    sent,
    job,
    ended(key) {
      settle("cancelled");
      say(status, key);
    },
    failed(error, onRetry) {
      settle("failed");
      say(status, "jobFailed");
      outcome.replaceChildren(h("p", { class: "problem", role: "alert" }, messageOf(error)));
      if (onRetry) outcome.append(actionButton("retry", onRetry));
    },
    /** Some files failed: the button that tries only those again. */
    offerRetry(onRetry) {
      outcome.append(actionButton("retryFailed", onRetry));
    },
    /** The sync would remove much: the reason, and the button that says yes to it. */
    confirm(reason, onYes) {
      settle("confirm");
      say(status, "jobFailed");
      outcome.replaceChildren(
        h("p", { class: "problem", role: "alert" }, reason),
        actionButton("repeatYes", onYes, "danger"),
      );
    },
  };
}

/** Whole minutes, at least one: an estimate by bytes is no better than that. */
const minutes = (seconds) => Math.max(1, Math.round(seconds / 60));

const actionButton = (text, onclick, look = "") =>
  h("button", { class: `button small ${look}`, type: "button", text, onclick });

/** The files of a job, kept open or closed as the user left it while the job goes on. */
function fileList() {
  const summary = h("summary", {});
  const list = h("ul", { class: "paths files" });
  const rest = h("p", { class: "fine", hidden: true });
  const node = h("details", { class: "job-files", hidden: true }, summary, list, rest);

  function item({ path, state, error }) {
    const badge = h("span", { class: `badge ${state}`, text: `state_${state}` });
    return h("li", {}, badge, pathView(path), error ? h("span", { class: "reason" }, error) : null);
  }

  return {
    node,
    show(rows) {
      const failures = rows.filter((row) => row.state === "failed").length;
      const sorted = [...rows].sort((a, b) => (ORDER[a.state] ?? 3) - (ORDER[b.state] ?? 3));
      list.replaceChildren(...sorted.slice(0, SHOWN_FILES).map(item));
      rest.hidden = rows.length <= SHOWN_FILES;
      say(rest, "moreFiles", { n: rows.length - SHOWN_FILES });
      if (failures) say(summary, "failedFiles", { n: failures });
      else say(summary, "fileStates", { n: rows.length });
      summary.classList.toggle("bad-text", failures > 0);
      if (node.hidden && rows.length) node.open = rows.length <= 12;
      node.hidden = rows.length === 0;
    },
    ended(rows) {
      this.show(rows);
      node.open = rows.some((row) => row.state === "failed");
    },
  };
}
