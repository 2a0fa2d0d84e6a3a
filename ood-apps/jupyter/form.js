'use strict';
// Open OnDemand keeps form.yml.erb for hours; what belongs to this user or this visit comes from here. Text only, never markup.
var prefix = 'batch_connect_session_context_';

function field(name) {
  return document.getElementById(prefix + name);
}

function has(select, value) {
  return Array.prototype.some.call(select.options || [], function (option) { return option.value === value; });
}

// Jupyter answers pages of this address only.
if (field('portal_origin')) {
  field('portal_origin').value = window.location.origin;
}

// A link of Lossi's may fill the form in; it is never sent by itself.
function fill() {
  var query = new URLSearchParams(window.location.search);
  ['cluster', 'environment', 'interface', 'partition', 'gpu_type', 'gpus', 'cores', 'memory_gb', 'hours', 'account', 'folder']
    .forEach(function (name) {
      var value = query.get(name), target = field(name);
      if (value === null || !target || (target.tagName === 'SELECT' && !has(target, value))) {
        return;
      }
      target.value = value;
      target.dispatchEvent(new Event('change', { bubbles: true }));
    });
}

// The user's own environments: the site's form cannot know them.
function own() {
  var select = field('environment');
  if (!select || !window.fetch) {
    return Promise.resolve();
  }
  var kind = /\/batch_connect\/dev\//.test(window.location.pathname) ? 'dev' : 'sys';
  return fetch('/pun/' + kind + '/lossi/api/v1/environments', { credentials: 'same-origin' })
    .then(function (answer) { return answer.ok ? answer.json() : { environments: [] }; })
    .then(function (told) {
      told.environments.filter(function (one) { return one.source === 'user' && !has(select, one.name); })
        .forEach(function (one) { select.add(new Option(one.title + ' (yours)', one.name)); });
    })
    .catch(function () {});
}

$(document).ready(function () {
  fill();
  own().then(fill);
});
