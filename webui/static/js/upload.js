/*
 * Uploads, one card each: the bytes going up, then the job that ingests them, then its report.
 * Batches go one after another. A job outlives the page: its id is kept until it is finished, and
 * a reload shows it again.
 */

import * as api from "./api.js";
import { $ } from "./dom.js";
import { notice, showError } from "./dialogs.js";
import { t } from "./i18n.js";
import { emit } from "./state.js";
import { session } from "./store.js";
import { uploadCard } from "./upload_card.js";

const JOBS = "kb.jobs"; // {job id: knowledge base id}
const ENDED = new Set(["done", "failed", "cancelled", "interrupted"]);
const NEEDS_YES = "ConfirmationNeededError"; // the sync would remove more than half
const TELL_EVERY_MS = 3000;
const RETRY_MS = [500, 1000, 2000, 5000];

let queue = Promise.resolve();
let sending = 0;
let toldAt = performance.now();

addEventListener("beforeunload", (event) => {
  if (sending) event.preventDefault(); // bytes still going up would be lost
});

/** Uploads `batches` (see files.js) into the knowledge base `kb`. */
export function uploadBatches(kb, batches) {
  for (const batch of batches) {
    if (batch.files.length) enqueue(kb, batch, {});
    else notice(t("folderEmpty", { name: batch.root ?? "" }), { isError: true });
  }
}

function enqueue(kb, batch, { yes = false } = {}) {
  const stop = new AbortController();
  const card = uploadCard(batch, { onCancel: () => stop.abort() });
  card.node.dataset.kb = kb.id;
  $("uploads").prepend(card.node);
  sending += 1;
  queue = queue.then(() => send(kb, batch, yes, card, stop));
}

async function send(kb, batch, yes, card, stop) {
  const options = { root: batch.root, prune: batch.root !== null, yes };
  let job;
  try {
    stop.signal.throwIfAborted();
    job = await api.upload(kb.id, batch.files, options, card.sent, stop.signal);
  } catch (error) {
    if (error.name === "AbortError") card.ended("uploadCancelled");
    else if (error.type === NEEDS_YES) offerYes(kb, batch, card, error.message);
    else card.failed(error, () => again(kb, batch, card, { yes }));
    return;
  } finally {
    sending -= 1;
  }
  remember(job.id, kb.id);
  const last = await follow(job, card, stop.signal);
  if (last?.error_type === NEEDS_YES) offerYes(kb, batch, card, last.error);
}

/** Tries the failed files of a job again, in a card of their own; their bytes are still there. */
async function retryFailed(job, card) {
  try {
    const next = await api.retryJob(job.id);
    card.node.remove();
    showJob(next, job.kb_id);
  } catch (error) {
    showError(error);
  }
}

function offerYes(kb, batch, card, reason) {
  card.confirm(reason, () => again(kb, batch, card, { yes: true }));
}

function again(kb, batch, card, options) {
  card.node.remove();
  enqueue(kb, batch, options);
}

/** Shows a job until it ends; resolves to its last state, or null when it is gone. */
async function follow(first, card, signal) {
  const cancel = () => api.cancelJob(first.id).catch(showError);
  if (signal.aborted) cancel();
  signal.addEventListener("abort", cancel);
  let job = first;
  card.job(job);
  for (let attempt = 0; !ENDED.has(job.state); attempt += 1) {
    try {
      for await (const { data } of api.jobEvents(job.id)) {
        job = data;
        attempt = 0;
        card.job(job);
        tellProgress(job.kb_id);
      }
      if (!ENDED.has(job.state)) job = await api.job(job.id); // the stream ended early
    } catch (error) {
      if (error instanceof api.ApiError && error.status < 500) {
        card.failed(error);
        remember(first.id, null);
        return null;
      }
    }
    const wait = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)];
    if (!ENDED.has(job.state)) await new Promise((resolve) => setTimeout(resolve, wait));
  }
  signal.removeEventListener("abort", cancel);
  remember(first.id, null);
  card.job(job);
  if ((job.files ?? []).some((file) => file.state === "failed"))
    card.offerRetry(() => retryFailed(job, card));
  emit("documents", job.kb_id);
  return job;
}

/** Lets the list of documents grow while a long job runs. */
function tellProgress(kbId) {
  if (performance.now() - toldAt < TELL_EVERY_MS) return;
  toldAt = performance.now();
  emit("progress", kbId);
}

function remembered() {
  return JSON.parse(session.get(JOBS) ?? "{}");
}

function remember(jobId, kbId) {
  const jobs = remembered();
  if (kbId) jobs[jobId] = kbId;
  else delete jobs[jobId];
  session.set(JOBS, JSON.stringify(jobs));
}

/** Shows again the jobs that were running when the page was left. */
export async function resumeJobs() {
  for (const [id, kb] of Object.entries(remembered())) {
    try {
      showJob(await api.job(id), kb);
    } catch (error) {
      if (error instanceof api.ApiError) remember(id, null);
    }
  }
}

function showJob(job, kb) {
  const stop = new AbortController();
  const card = uploadCard({ root: null, files: job.files ?? [] }, { onCancel: () => stop.abort() });
  card.node.dataset.kb = kb;
  $("uploads").prepend(card.node);
  remember(job.id, kb);
  follow(job, card, stop.signal);
}

/** Only the cards of the knowledge base that is shown are visible. */
export function showUploadsOf(kbId) {
  for (const card of $("uploads").children) card.hidden = card.dataset.kb !== kbId;
}
