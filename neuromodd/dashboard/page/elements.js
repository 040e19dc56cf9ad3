// Building the document. Whatever comes from the daemon becomes text, never markup.

/** An element with attributes and children; an attribute that is null or false is left out. */
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(key, value === true ? "" : value);
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const find = (id) => document.getElementById(id);

/** The part of a section that its view fills. */
export const bodyOf = (id) => document.querySelector(`#${id} > .body`);

/** Set a text, where it is another: an equal one would be laid out again, and perhaps read out. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set an attribute, where it is another. */
export function mark(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}
