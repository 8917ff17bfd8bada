/* Server-sent events read from a fetch body, because EventSource cannot send the key header. */

/**
 * Yields {event, data} with `data` parsed from JSON. Ends when the stream ends; whether that was
 * too early is the caller's to judge. Line ends may be LF, CRLF or CR; comments are skipped.
 */
export async function* readEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let pending = "";
  let event = "message";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      pending += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const lines = pending.split(/\r\n|\n|\r(?!$)/); // a last CR may be half of a CRLF
      pending = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length) yield { event, data: JSON.parse(data.join("\n")) };
          event = "message";
          data = [];
        } else if (line.startsWith("event:")) {
          event = line.slice(6).trim();
        } else if (line.startsWith("data:")) {
          data.push(line.slice(5).replace(/^ /, ""));
        }
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {}); // tells the server when we stop reading early
  }
}
