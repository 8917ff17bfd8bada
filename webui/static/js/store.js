/* Small values that outlive a reload. Blocked storage is not an error: values are then lost. */

function area(kind) {
  return {
    get(name) {
      try {
        return window[kind].getItem(name);
      } catch {
        return null;
      }
    },
    set(name, value) {
      try {
        if (value === null || value === "") window[kind].removeItem(name);
        else window[kind].setItem(name, value);
      } catch {
        // private mode or a full store: nothing depends on it
      }
    },
  };
}

/** Survives closing the browser: theme and language. */
export const lasting = area("localStorage");

/** Ends with the tab: the API key, drafts, running jobs. */
export const session = area("sessionStorage");
