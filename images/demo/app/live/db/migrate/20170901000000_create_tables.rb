# frozen_string_literal: true

# The columns that the original has under the same names and that deployment tools look at; the rest is left out.
class CreateTables < ActiveRecord::Migration[6.1]
  def change
    create_table :accounts do |t|
      t.string :username, null: false, default: ''
      t.string :domain
      t.string :display_name, null: false, default: ''
      t.text :note, null: false, default: ''
      t.boolean :locked, null: false, default: false
      t.timestamps
      t.index "lower(username), COALESCE(lower(domain), '')", unique: true, name: 'index_accounts_on_username_and_domain_lower'
    end

    create_table :users do |t|
      t.string :email, null: false, default: '', index: { unique: true }
      t.string :encrypted_password, null: false, default: ''
      t.integer :sign_in_count, null: false, default: 0
      t.datetime :current_sign_in_at
      t.inet :current_sign_in_ip
      t.boolean :admin, null: false, default: false
      t.string :confirmation_token, index: { unique: true }
      t.datetime :confirmed_at
      t.datetime :confirmation_sent_at
      t.string :locale
      t.belongs_to :account, null: false, foreign_key: { on_delete: :cascade }
      t.timestamps
    end

    create_table :statuses do |t|
      t.belongs_to :account, null: false, foreign_key: { on_delete: :cascade }
      t.text :text, null: false, default: ''
      t.integer :visibility, null: false, default: 0
      t.timestamps
    end

    create_table :media_attachments do |t|
      t.belongs_to :account, foreign_key: { on_delete: :nullify }
      t.belongs_to :status, foreign_key: { on_delete: :nullify }
      t.string :file_file_name
      t.string :file_content_type
      t.integer :file_file_size
      t.timestamps
    end

    create_table :oauth_applications do |t|
      t.string :name, null: false
      t.string :uid, null: false, index: { unique: true }
      t.string :secret, null: false
      t.text :redirect_uri, null: false
      t.string :scopes, null: false, default: ''
      t.string :website
      t.boolean :superapp, null: false, default: false
      t.timestamps
    end

    create_table :oauth_access_tokens do |t|
      t.string :token, null: false, index: { unique: true }
      t.string :scopes
      t.datetime :revoked_at
      t.belongs_to :application, foreign_key: { to_table: :oauth_applications, on_delete: :cascade }
      t.belongs_to :resource_owner, foreign_key: { to_table: :users, on_delete: :cascade }
      t.datetime :created_at, null: false
    end

    create_table :settings do |t|
      t.string :var, null: false
      t.text :value
      t.string :thing_type
      t.bigint :thing_id
      t.timestamps
      t.index [:thing_type, :thing_id, :var], unique: true
    end
  end
end
