# frozen_string_literal: true

Rails.application.routes.draw do
  root 'home#index'

  get 'about', to: 'about#show'
  get 'about/more', to: redirect('/about', status: 302)

  get  'auth/sign_up', to: 'auth/registrations#new', as: :new_registration
  post 'auth', to: 'auth/registrations#create', as: :registration
  get  'auth/confirmation', to: 'auth/confirmations#show', as: :confirmation
  get  'auth/sign_in', to: 'auth/sessions#new', as: :new_session
  post 'auth/sign_in', to: 'auth/sessions#create', as: :session
  delete 'auth/sign_out', to: 'auth/sessions#destroy', as: :sign_out

  get  'admin/settings/edit', to: 'admin#edit', as: :edit_admin_settings
  post 'admin/settings', to: 'admin#update', as: :admin_settings

  # The queues of Sidekiq, for an admin who is signed in; for everybody else the page does not exist.
  admin = ->(request) { User.find_by(id: request.session[:user_id])&.admin? }
  constraints(admin) do
    mount ->(env) { Sidekiq::Web.call(env) }, at: '/sidekiq', as: :sidekiq
  end

  get '@:username', to: 'accounts#show', as: :account, constraints: { username: /[^\/.]+/ }
  get '@:username/:id', to: 'accounts#show', as: :account_status, constraints: { username: /[^\/.]+/, id: /\d+/ }

  post 'oauth/token', to: 'oauth#token'

  namespace :api, defaults: { format: 'json' } do
    namespace :v1 do
      get 'instance', to: 'instances#show'
      get 'accounts/verify_credentials', to: 'accounts#verify_credentials'
      get 'timelines/public', to: 'timelines#public'
      post 'apps', to: 'apps#create'
      resources :media, only: [:create]
      resources :statuses, only: [:create, :show]
    end
  end
end
