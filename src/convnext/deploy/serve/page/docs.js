// The addresses of the server, drawn from its own description; nothing comes from elsewhere.

const element = (name, text = "", className = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
};

const parameters = (list) => {
  const made = element("dl", "", "parameters");
  for (const { name, description, schema } of list) {
    made.append(element("dt", name), element("dd", description ? `${description} (${schema?.type ?? "any"})` : schema?.type ?? ""));
  }
  return made;
};

const address = (path, method, about) => {
  const section = element("section", "", "address");
  const title = element("h2");
  title.append(element("span", method.toUpperCase(), "method"), element("code", path));
  section.append(title, element("p", about.description ?? "", "lead"));
  if (about.parameters?.length) section.append(parameters(about.parameters));
  return section;
};

const image = `${location.origin}/v1/predict`;
document.getElementById("examples").textContent =
  `curl --data-binary @cat.jpg ${image}\ncurl -F images=@cat.jpg -F images=@dog.jpg '${image}?top=3'`;

const place = document.getElementById("addresses");
try {
  const found = await (await fetch("/openapi.json")).json();
  for (const [path, methods] of Object.entries(found.paths)) {
    for (const [method, about] of Object.entries(methods)) place.append(address(path, method, about));
  }
} catch (error) {
  place.append(element("p", `The addresses cannot be read: ${error.message}`, "error"));
}
place.removeAttribute("aria-busy");
