/*
 * The HTTP API: one function per route the page uses. Failures arrive as ApiError (the server
 * answered and said why) or NetworkError (it did not answer); a stop is the usual AbortError.
 * The key, where the server wants one, is asked for once and kept until the tab closes.
 */

import { readEvents } from "./sse.js";
import { emit } from "./state.js";
import { session } from "./store.js";

// The page may stand under a prefix of a reverse proxy: this file is at <root>static/js/api.js.
const ROOT = new URL("../../", import.meta.url);
const KEY = "kb.key";

export class ApiError extends Error {
  constructor(status, type, message) {
    super(message);
    this.status = status;
    this.type = type;
  }
}

export class NetworkError extends Error {}

let askForKey = async () => false;
let keyPrompt = null;

/** `prompt(rejected)` asks the user, calls useKey and resolves to false when they give up. */
export function onKeyNeeded(prompt) {
  askForKey = prompt;
}

export const useKey = (key) => session.set(KEY, key);

async function keyGiven(usedKey) {
  if (session.get(KEY) !== usedKey) return true; // another request has asked meanwhile
  keyPrompt ??= askForKey(usedKey !== null).finally(() => (keyPrompt = null));
  return keyPrompt;
}

function headersFor(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function errorOf(status, text) {
  try {
    const { type, message } = JSON.parse(text).error;
    return new ApiError(status, type, message);
  } catch {
    return new ApiError(status, "HTTPError", `HTTP ${status} ${text.slice(0, 200)}`.trim());
  }
}

/** Sends one request, asking for the key as often as the server refuses it. */
async function send(method, path, { json, signal, accept = "application/json" } = {}) {
  for (;;) {
    const key = session.get(KEY);
    const headers = { Accept: accept, ...headersFor(key) };
    if (json !== undefined) headers["Content-Type"] = "application/json";
    const body = json === undefined ? undefined : JSON.stringify(json);
    let response;
    try {
      response = await fetch(new URL(path, ROOT), { method, headers, body, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      emit("network", false);
      throw new NetworkError(error.message);
    }
    emit("network", true);
    if (response.ok) return response;
    const failure = errorOf(response.status, await response.text());
    if (response.status !== 401 || !(await keyGiven(key))) throw failure;
  }
}

async function call(method, path, options) {
  const response = await send(method, path, options);
  return response.status === 204 ? null : response.json();
}

async function* stream(method, path, options) {
  const response = await send(method, path, { ...options, accept: "text/event-stream" });
  try {
    yield* readEvents(response.body);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new NetworkError(error.message);
  }
}

const base = (id) => `kb/${encodeURIComponent(id)}`;
const document_ = (kb, id) => `${base(kb)}/documents/${encodeURIComponent(id)}`;

export const info = () => call("GET", "info");
export const listBases = async () => (await call("GET", "kb")).kbs;
export const createBase = (name) => call("POST", "kb", { json: { name } });
export const renameBase = (id, name) => call("PATCH", base(id), { json: { name } });
export const deleteBase = (id) => call("DELETE", base(id));

/** `query` may hold offset, limit, status and q; resolves to {documents, total}. */
export const listDocuments = (kb, query, signal) =>
  call("GET", `${base(kb)}/documents?${new URLSearchParams(query)}`, { signal });
export const removeDocument = (kb, id) => call("DELETE", document_(kb, id));
/** `version` is the text that a citation was made from; one that is not kept gives the current. */
export async function documentText(kb, id, version, signal) {
  const path = `${document_(kb, id)}/text`;
  try {
    return await call("GET", version ? `${path}?version=${version}` : path, { signal });
  } catch (error) {
    if (error.type !== "VersionNotFoundError") throw error;
    return call("GET", path, { signal });
  }
}
export const documentContent = async (kb, id) =>
  (await send("GET", `${document_(kb, id)}/content`, { accept: "*/*" })).blob();

export const search = (kb, body, signal) =>
  call("POST", `${base(kb)}/search`, { json: body, signal });
export const readTrace = (id) => call("GET", `traces/${encodeURIComponent(id)}`);

/** Yields {event, data}: `retrieved`, `token`, then `finished` or `error`. */
export const ask = (kb, body, signal) =>
  stream("POST", `${base(kb)}/ask`, { json: { ...body, stream: true }, signal });

const feedback = (trace) => `traces/${encodeURIComponent(trace)}/feedback`;
export const rateAnswer = (trace, rating) => call("PUT", feedback(trace), { json: { rating } });
export const takeBackRating = (trace) => call("DELETE", feedback(trace));

export const job = (id) => call("GET", `jobs/${encodeURIComponent(id)}`);
export const cancelJob = (id) => call("POST", `jobs/${encodeURIComponent(id)}/cancel`);
export const retryJob = async (id) =>
  (await call("POST", `jobs/${encodeURIComponent(id)}/retry`)).job;
export const jobEvents = (id, signal) =>
  stream("GET", `jobs/${encodeURIComponent(id)}/events`, { signal });

/** Resolves when the server answers at all. */
export const reachable = () => fetch(new URL("health", ROOT)).then(() => emit("network", true));

/**
 * Uploads files and resolves to the job that ingests them.
 * `files`: [{file, path}]; `options`: root, prune, yes; `onBytes(sent, total)` in bytes.
 * XMLHttpRequest, because fetch cannot report the progress of a request body.
 */
export async function upload(kb, files, options, onBytes, signal) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(options)) if (value) query.set(name, value);
  for (;;) {
    const key = session.get(KEY);
    const { status, text } = await post(
      `${base(kb)}/documents?${query}`,
      files,
      key,
      onBytes,
      signal,
    );
    emit("network", true);
    if (status === 202) return JSON.parse(text).job;
    if (status !== 401 || !(await keyGiven(key))) throw errorOf(status, text);
  }
}

function post(path, files, key, onBytes, signal) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    for (const { file, path: name } of files) form.append("files", file, name);
    const request = new XMLHttpRequest();
    request.open("POST", new URL(path, ROOT));
    for (const [name, value] of Object.entries(headersFor(key))) {
      request.setRequestHeader(name, value);
    }
    request.upload.onprogress = ({ loaded, total }) => onBytes(loaded, total);
    request.onload = () => resolve({ status: request.status, text: request.responseText });
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    request.onerror = () => {
      emit("network", false);
      reject(new NetworkError("the upload was interrupted"));
    };
    signal.addEventListener("abort", () => request.abort());
    if (signal.aborted) request.abort();
    request.send(form);
  });
}
