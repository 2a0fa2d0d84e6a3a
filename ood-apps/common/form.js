'use strict';
// Open OnDemand keeps form.yml.erb for hours; what belongs to this user or this visit comes from here. Fields that an app's form does
// not have are left out. Text only, never markup; nothing is submitted.
var prefix = 'batch_connect_session_context_';
var numbers = ['cores', 'memory_gb', 'hours'];
var linked = ['cluster', 'environment', 'interface', 'queue', 'gpu_type', 'gpus', 'account', 'folder', 'store'].concat(numbers);

function field(name) {
  return document.getElementById(prefix + name);
}

function has(select, value) {
  return Array.prototype.some.call(select.options || [], function (option) { return option.value === value; });
}

function change(target, value) {
  target.value = value;
  target.dispatchEvent(new Event('change', { bubbles: true }));
}

// A link on Lossi's pages may fill in the form.
function fill() {
  var query = new URLSearchParams(window.location.search);
  linked.forEach(function (name) {
    var value = query.get(name), target = field(name);
    if (value === null || !target || (target.tagName === 'SELECT' && !has(target, value))) {
      return;
    }
    if (name !== 'store' || value.charAt(0) === '/') {
      change(target, value);
    }
  });
}

// The site's form does not know the user's own environments.
function addOwnEnvironments() {
  var select = field('environment');
  if (!select || !window.fetch) {
    return Promise.resolve();
  }
  var kind = /\/batch_connect\/dev\//.test(window.location.pathname) ? 'dev' : 'sys';
  return fetch('/pun/' + kind + '/lossi/api/v1/environments', { credentials: 'same-origin' })
    .then(function (response) { return response.ok ? response.json() : { environments: [] }; })
    .then(function (catalog) {
      catalog.environments.filter(function (own) { return own.source === 'user' && !has(select, own.name); })
        .forEach(function (own) { select.add(new Option(own.title + ' (yours)', own.name)); });
    })
    .catch(function () {});
}

// Open OnDemand's page moves a number at the limit of one partition to the limit of the next, however high that is. The number that
// the user entered stays, as far as the limits allow.
function keepNumbers() {
  var entered = {};
  numbers.filter(field).forEach(function (name) { entered[name] = field(name).value; });
  document.addEventListener('change', function (event) {
    Object.keys(entered).forEach(function (name) {
      var target = field(name);
      if (event.target === target) {
        entered[name] = target.value;
      } else if (target.max !== '') {
        target.value = Math.max(target.min, Math.min(target.max, entered[name]));
      }
    });
  });
}

// The page may leave no environment chosen: choose the first that it has not disabled.
function chooseEnvironment() {
  var select = field('environment');
  if (select && select.value === '') {
    var fitting = Array.prototype.find.call(select.options, function (option) { return option.value !== '' && !option.disabled; });
    if (fitting) {
      change(select, fitting.value);
    }
  }
}

$(document).ready(function () {
  // The only address whose pages a session answers.
  if (field('portal_origin')) {
    field('portal_origin').value = window.location.origin;
  }
  keepNumbers();
  fill();
  addOwnEnvironments().then(fill);
  // Once Open OnDemand's own page has hidden what does not fit.
  document.addEventListener('change', function () { setTimeout(chooseEnvironment, 0); });
  setTimeout(chooseEnvironment, 0);
});
