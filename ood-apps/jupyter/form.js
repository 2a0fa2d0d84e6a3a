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
  ['cluster', 'environment', 'interface', 'queue', 'gpu_type', 'gpus', 'cores', 'memory_gb', 'hours', 'account', 'folder']
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

// A number that is at the limit of one partition, Open OnDemand's page moves to the limit of the next, however high that is. What was
// asked for stays, as far as it can.
function keep() {
  var names = ['cores', 'memory_gb', 'hours'], wanted = {};
  names.filter(field).forEach(function (name) { wanted[name] = field(name).value; });
  document.addEventListener('change', function (event) {
    Object.keys(wanted).forEach(function (name) {
      var target = field(name);
      if (event.target === target) {
        wanted[name] = target.value;
      } else if (target.max !== '') {
        target.value = Math.max(target.min, Math.min(target.max, wanted[name]));
      }
    });
  });
}

// The page puts an empty choice before the environments, or leaves none: here, the first that goes with the rest.
function first() {
  var select = field('environment');
  if (select && select.value === '') {
    var fitting = Array.prototype.find.call(select.options, function (option) { return option.value !== '' && !option.disabled; });
    if (fitting) {
      select.value = fitting.value;
      select.dispatchEvent(new Event('change', { bubbles: true }));
    }
  }
}

$(document).ready(function () {
  keep();
  fill();
  own().then(fill);
  // Once Open OnDemand's own page has hidden what does not fit.
  document.addEventListener('change', function () { setTimeout(first, 0); });
  setTimeout(first, 0);
});
