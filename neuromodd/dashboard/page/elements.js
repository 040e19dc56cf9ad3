// Building the document. Whatever comes from the daemon becomes text, never markup.

/** An element with attributes and children; a child that is not an element is text. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const find = (id) => document.getElementById(id);

/** Set a text only where it changes: a screen reader need not hear the same again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tell whoever listens rather than looks. */
export const announce = (text) => say(find("said"), text);
