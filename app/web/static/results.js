// The results with their pictures: one stream of records, so that label and picture are always of
// the same frame. A record: two lengths (four bytes each, big-endian), the result as JSON, and its
// picture as JPEG, which is empty if the frame has none.

const HEAD_BYTES = 8;
const RETRY_MS = 3000;

export class Results {
  #stopper = new AbortController();
  #retry = 0;

  // show(result, picture): called for each result; picture is null if it has none.
  // refused(text): called if the server has too many viewers; it is asked again later.
  constructor(show, refused) {
    this.show = show;
    this.refused = refused;
  }

  start() {
    this.stop();
    this.#stopper = new AbortController();
    this.#follow(this.#stopper.signal);
  }

  stop() {
    clearTimeout(this.#retry);
    this.#stopper.abort();
  }

  async #follow(signal) {
    try {
      const answer = await fetch("/results", { signal });
      if (answer.status === 503) this.refused(await answer.text());
      if (answer.ok) await this.#read(answer.body.getReader(), signal);
    } catch (error) {
      if (!signal.aborted) console.debug(error); // a lost connection, which the events notice too
    }
    if (!signal.aborted) this.#retry = setTimeout(() => this.start(), RETRY_MS);
  }

  async #read(reader, signal) {
    let bytes = new Uint8Array(0);
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const [record, rest] = newest(joined(bytes, value));
      bytes = rest;
      if (record === null) continue;
      const picture = record.jpeg.length === 0 ? null : await decoded(record.jpeg);
      if (signal.aborted) return;
      this.show(record.result, picture);
      picture?.close();
    }
  }
}

function joined(before, after) {
  const both = new Uint8Array(before.length + after.length);
  both.set(before);
  both.set(after, before.length);
  return both;
}

// Return the last complete record and the bytes after it; a slow page skips the records before.
function newest(bytes) {
  let record = null;
  while (bytes.length >= HEAD_BYTES) {
    const head = new DataView(bytes.buffer, bytes.byteOffset, HEAD_BYTES);
    const middle = HEAD_BYTES + head.getUint32(0);
    const end = middle + head.getUint32(4);
    if (bytes.length < end) break;
    record = { json: bytes.subarray(HEAD_BYTES, middle), jpeg: bytes.subarray(middle, end) };
    bytes = bytes.subarray(end);
  }
  if (record) record.result = JSON.parse(new TextDecoder().decode(record.json));
  return [record, bytes];
}

function decoded(jpeg) {
  return createImageBitmap(new Blob([jpeg], { type: "image/jpeg" })).catch(() => null);
}
